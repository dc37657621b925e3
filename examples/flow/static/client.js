// The honest client: authorization code with PKCE, a token bound to its key, and a new proof for every request.

import { decode, makeProof, randomText, sha256 } from "./dpop.js";
import { answerOf, send } from "./exchange.js";

const FORM = { "Content-Type": "application/x-www-form-urlencoded" };

/** RFC 8414: where the endpoints are. The document must be about the issuer that we asked for. */
export async function discover(issuer) {
  const response = await fetch(`${issuer}/.well-known/oauth-authorization-server`);
  const metadata = await response.json();
  if (metadata.issuer !== issuer) throw new Error("The metadata is another issuer's.");
  return metadata;
}

/** What to remember until the user comes back, and where to send them. */
export async function authorizationRequest({ metadata, clientId, redirectUri, jkt }) {
  const state = randomText();
  const verifier = randomText() + randomText();
  const url = new URL(metadata.authorization_endpoint);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    state,
    code_challenge: await sha256(verifier),
    code_challenge_method: "S256",
    dpop_jkt: jkt,
  });
  return { url: url.href, state, verifier };
}

/** What came back in the page's own URL; throws where it isn't the answer to our question. */
export function authorizationResponse(search, { state, issuer }) {
  const answer = new URLSearchParams(search);
  if (!state || answer.get("state") !== state) throw new Error("This answer belongs to another request: state differs.");
  if (answer.get("iss") !== issuer) throw new Error("This answer comes from another issuer.");
  if (answer.has("error")) throw new Error(`The authorization server says: ${answer.get("error")}`);
  return answer.get("code");
}

/** Ask the token endpoint, with a proof by `pair`. */
export async function requestToken(pair, { from = "You", metadata, parameters }) {
  const url = metadata.token_endpoint;
  const proof = await makeProof(pair, { method: "POST", url });
  const record = await send({
    from, to: "authorization server", method: "POST", url, proof,
    headers: { ...FORM, DPoP: proof.text },
    body: new URLSearchParams(parameters).toString(),
  });
  if (record.status === 200) record.token = decode(answerOf(record).access_token);
  return record;
}

/** Call the API. What a thief does differently is said by the arguments. */
export function callApi({ from = "You", method = "GET", url, scheme = "DPoP", accessToken, proof = null }) {
  const headers = { Authorization: `${scheme} ${accessToken}` };
  if (proof) headers.DPoP = proof.text;
  return send({ from, to: "API", method, url, headers, proof, token: decode(accessToken) });
}
