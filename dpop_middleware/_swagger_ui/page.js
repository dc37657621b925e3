// FastAPI's page, with requests signed by WebCrypto (RFC 9449): a key that can't be read, a token bound to it,
// nonces of the server. Token and proofs go to the origins of the API only.

const panel = document.getElementById("dpop");
const settings = JSON.parse(panel.dataset.settings);
const byId = (id) => document.getElementById(id);
const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const LOGIN = "dpop login";
const origins = new Set([location.origin, ...settings.origins]);
const nonces = new Map();
const encoder = new TextEncoder();
let pair = null;
let jwk = null;
let jkt = "";
let accessToken = "";

const say = (text) => { byId("dpop-status").textContent = text; };

function base64url(bytes) {
  const text = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const sha256 = async (text) => base64url(await crypto.subtle.digest("SHA-256", encoder.encode(text)));
const randomText = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

function inKeys(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(`dpop ${location.pathname}`, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const transaction = opening.result.transaction("keys", mode);
      const request = work(transaction.objectStore("keys"));
      transaction.oncomplete = () => { opening.result.close(); resolve(request.result); };
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    };
  });
}

/** IndexedDB keeps a handle to the private key: a page that was reloaded can sign, and nothing can read it. */
async function takeKey({ fresh = false } = {}) {
  pair = fresh ? null : await inKeys("readonly", (keys) => keys.get("client"));
  if (!pair) {
    pair = await crypto.subtle.generateKey(ES256, false, ["sign", "verify"]);
    await inKeys("readwrite", (keys) => keys.put(pair, "client"));
  }
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  jwk = { kty, crv, x, y };
  jkt = await sha256(JSON.stringify({ crv, kty, x, y }));
  byId("dpop-jkt").textContent = jkt;
}

async function proofOf(method, url, { token, nonce }) {
  const payload = {
    jti: randomText(), htm: method, htu: url.origin + url.pathname, iat: Math.floor(Date.now() / 1000),
    ...(token && { ath: await sha256(token) }), ...(nonce && { nonce }),
  };
  const parts = [{ typ: "dpop+jwt", alg: "ES256", jwk }, payload];
  const input = parts.map((part) => base64url(encoder.encode(JSON.stringify(part)))).join(".");
  return `${input}.${base64url(await crypto.subtle.sign(ES256, pair.privateKey, encoder.encode(input)))}`;
}

/** Send a request with a new proof, once more where the server has a nonce for it that we didn't know. */
async function send(address, options, token) {
  const url = new URL(address, location.href);
  const method = (options.method ?? "GET").toUpperCase();
  for (let tries = 0; ; tries += 1) {
    const nonce = nonces.get(url.origin);
    const headers = { ...options.headers, DPoP: await proofOf(method, url, { token, nonce }) };
    if (token) headers.Authorization = `DPoP ${token}`;
    // A redirected request would carry token and proof, and the proof is for this URL only.
    const response = await fetch(url, { ...options, method, headers, redirect: "error" });
    const next = response.headers.get("DPoP-Nonce");
    if (next) nonces.set(url.origin, next);
    const asksForNonce = [400, 401].includes(response.status) && next && next !== nonce;
    if (!asksForNonce || tries) return response;
  }
}

function signedFetch(address, options) {
  const ours = origins.has(new URL(address, location.href).origin);
  return accessToken && ours ? send(address, options, accessToken) : fetch(address, options);
}

function bindingOf(token) {
  try {
    const [, payload] = token.split(".");
    return JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/"))).cnf?.jkt;
  } catch {
    return undefined; // an opaque token: the API knows
  }
}

function useToken(token) {
  const bound = bindingOf(token);
  if (bound && bound !== jkt) {
    say("This token is bound to another key: ask for one that is bound to the thumbprint above.");
    return;
  }
  accessToken = token;
  say(token ? "Each request is signed." : "Without a token, requests are sent unchanged.");
}

async function login() {
  const state = randomText();
  const verifier = randomText();
  sessionStorage.setItem(LOGIN, JSON.stringify({ state, verifier }));
  const url = new URL(settings.login.authorizationEndpoint);
  const parameters = {
    ...settings.login.parameters, response_type: "code", client_id: settings.login.clientId, state, dpop_jkt: jkt,
    redirect_uri: location.origin + location.pathname,
    code_challenge: await sha256(verifier), code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  location.assign(url);
}

async function comeBack() {
  const answer = new URLSearchParams(location.search);
  if (!settings.login || !answer.has("state") || !(answer.has("code") || answer.has("error"))) return;
  history.replaceState(null, "", location.pathname + location.hash);
  const { state, verifier } = JSON.parse(sessionStorage.getItem(LOGIN) ?? "{}");
  sessionStorage.removeItem(LOGIN);
  if (!state || answer.get("state") !== state) throw new Error("this answer belongs to another request");
  const { issuer } = settings.login;
  if (issuer && answer.get("iss") !== issuer) throw new Error("this answer comes from another issuer");
  if (answer.has("error")) throw new Error(`the authorization server says ${answer.get("error")}`);
  const body = new URLSearchParams({
    grant_type: "authorization_code", code: answer.get("code"), client_id: settings.login.clientId,
    redirect_uri: location.origin + location.pathname, code_verifier: verifier,
  });
  const response = await send(settings.login.tokenEndpoint, { method: "POST", body, credentials: "omit" });
  const tokens = await response.json();
  if (!response.ok) throw new Error(`the token endpoint says ${tokens.error}`);
  if (tokens.token_type?.toLowerCase() !== "dpop") throw new Error("the token is not bound to the key");
  useToken(tokens.access_token);
}

/** Errors are shown on the page. */
const attempt = (work) => async () => {
  try {
    await work();
  } catch (error) {
    say(`It didn't work: ${error.message}.`);
  }
};

byId("dpop-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("dpop-token").value.trim());
  byId("dpop-token").value = "";
});
byId("dpop-renew").addEventListener("click", attempt(async () => {
  await takeKey({ fresh: true });
  useToken("");
}));
byId("dpop-login").hidden = !settings.login;
byId("dpop-login").addEventListener("click", attempt(login));

await attempt(async () => {
  if (!globalThis.crypto?.subtle) throw new Error("a browser can sign only on https and on localhost");
  await takeKey();
  useToken("");
  await comeBack();
})();

globalThis.SwaggerUIBundle({
  ...settings.parameters,
  url: settings.openapiUrl,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset].filter(Boolean),
  requestInterceptor(request) {
    if (!request.loadSpec) request.userFetch = signedFetch;
    return request;
  },
});
