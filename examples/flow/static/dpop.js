// The client's side of RFC 9449, with nothing but WebCrypto.

const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const encoder = new TextEncoder();

function base64url(bytes) {
  const text = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64url(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(bytes, (letter) => letter.charCodeAt(0)));
}

export async function sha256(text) {
  return base64url(await crypto.subtle.digest("SHA-256", encoder.encode(text)));
}

export function randomText() {
  return base64url(crypto.getRandomValues(new Uint8Array(24)));
}

/** A key pair whose private half never leaves the browser's key store: not even this page can read it. */
export function makeKey() {
  return crypto.subtle.generateKey(ES256, false, ["sign", "verify"]);
}

/** The answer of WebCrypto to an attempt to copy the private key. */
export async function tryToExport(pair) {
  try {
    await crypto.subtle.exportKey("jwk", pair.privateKey);
    return "exported";
  } catch (error) {
    return error.name;
  }
}

export async function publicJwk(pair) {
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  return { kty, crv, x, y };
}

/** RFC 7638: the required members, in alphabetical order, without spaces. */
export function thumbprint({ crv, kty, x, y }) {
  return sha256(JSON.stringify({ crv, kty, x, y }));
}

/** A proof for one request (RFC 9449 section 4.2), with the parts that it was made of. */
export async function makeProof(pair, { method, url, accessToken, nonce, iat }) {
  const header = { typ: "dpop+jwt", alg: "ES256", jwk: await publicJwk(pair) };
  const payload = {
    jti: randomText(),
    htm: method,
    htu: url,
    iat: iat ?? Math.floor(Date.now() / 1000),
  };
  if (accessToken) payload.ath = await sha256(accessToken);
  if (nonce) payload.nonce = nonce;
  const parts = [header, payload].map((part) => base64url(encoder.encode(JSON.stringify(part))));
  const signingInput = parts.join(".");
  const signature = base64url(await crypto.subtle.sign(ES256, pair.privateKey, encoder.encode(signingInput)));
  return { text: `${signingInput}.${signature}`, header, payload, signingInput, signature };
}

/** What a JWT says. Whether it is true is for its audience to verify. */
export function decode(jwt) {
  const [header, payload] = jwt.split(".", 2).map((part) => JSON.parse(fromBase64url(part)));
  return { text: jwt, header, payload };
}
