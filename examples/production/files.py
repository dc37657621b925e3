"""The folder of a run: certificates, passwords, and the configuration files of this folder, filled in."""

import re
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import trustme

HERE = Path(__file__).parent
ROLES = ("api", "replica", "sentinel")


class Files:
    """Writes into `folder`, which only we can read; the certificates are for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords = {role: secrets.token_urlsafe(24) for role in ROLES}
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.authority, self.certificate, self.key = (
            folder / f"{name}.pem" for name in ("ca", "certificate", "key")
        )
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def trust(self) -> ssl.SSLContext:
        """Return what a client needs to trust our servers."""
        return ssl.create_default_context(cafile=self.authority)

    def directory(self, name: str) -> Path:
        """Make a directory for one server."""
        path = self.folder / name
        path.mkdir()
        return path

    def configure(
        self,
        name: str,
        values: Mapping[str, object] = MappingProxyType({}),
        *,
        directory: Path | None = None,
        tls: bool = True,
    ) -> Path:
        """Write the configuration file `name`, with `values` for what stands between @ signs."""
        text = (HERE / name).read_text(encoding="utf-8")
        target = (directory or self.folder) / name
        known = {"FOLDER": self.folder, "DIRECTORY": target.parent, **values}
        known |= {f"{role.upper()}_PASSWORD": password for role, password in self.passwords.items()}
        text = re.sub(r"@([A-Z_]+)@", lambda found: str(known[found[1]]), text)
        target.write_text(text if tls else without_tls(text), encoding="utf-8")
        return target


def without_tls(text: str) -> str:
    """Return the configuration of a server that was built without TLS."""
    lines = [line for line in text.splitlines() if line != "port 0"]
    plain = [line.replace("tls-port", "port") for line in lines]
    return "\n".join(line for line in plain if not line.startswith("tls-")) + "\n"
