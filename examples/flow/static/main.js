// The page: four steps and the attacks.

import { attacks } from "./attacks.js";
import { authorizationRequest, authorizationResponse, callApi, discover, requestToken } from "./client.js";
import { makeKey, makeProof, publicJwk, thumbprint, tryToExport } from "./dpop.js";
import { answerOf } from "./exchange.js";
import { forgetKey, forgetSteps, loadKey, loadSteps, saveKey, saveSteps } from "./memory.js";
import { openSocket } from "./socket.js";
import { summary } from "./summary.js";
import { announce, authorizationCard, element, exchange, keyCard, socketCard, verdict } from "./view.js";

const REDIRECT_URI = `${location.origin}/`;

const settings = await (await fetch("settings.json")).json();
const steps = loadSteps();
let pair = await loadKey();
if (!(await isOurs(pair))) forget();

const byId = (id) => document.getElementById(id);

/** Servers that were started again know no code or token of before; another tab may have made another key. */
async function isOurs(stored) {
  if (!stored || steps.instance !== settings.instance) return false;
  return await thumbprint(await publicJwk(stored)) === steps.key.jkt;
}

function forget() {
  for (const name of Object.keys(steps)) delete steps[name];
  pair = null;
  forgetSteps();
}

function remember(changes) {
  Object.assign(steps, changes);
  saveSteps(steps);
  show();
}

/** Show every error of a step next to that step. */
function on(button, work) {
  button.addEventListener("click", async () => {
    button.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      console.warn(error);
      trouble(error.message);
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
}

function trouble(text) {
  const box = byId("trouble");
  box.textContent = text;
  box.hidden = !text;
}

/** A button that is done is disabled and loses the focus: what came of it gets it. */
function focusResult(name) {
  document.querySelector(`#${name}-result h4`).focus();
}

function show() {
  // The latest step lies open; those before it can be opened again.
  const { explanations } = settings;
  const options = (next) => ({ explanations, own: steps.key, open: next ? "none" : "all" });
  const views = {
    key: steps.key && keyCard(steps.key, { open: !steps.authorization }),
    authorize: steps.authorization && authorizationCard(steps.authorization, { open: !steps.token }),
    token: steps.token && exchange(steps.token, options(steps.api)),
    api: steps.api && exchange(steps.api, options(steps.socket)),
    socket: steps.socket && element("div", {},
      exchange(steps.socket.record, options(false)), socketCard(steps.socket)),
  };
  for (const [name, view] of Object.entries(views)) {
    byId(`${name}-result`).replaceChildren(...(view ? [view] : []));
  }
  const done = {
    key: Boolean(steps.key),
    authorize: Boolean(steps.authorization?.code),
    token: steps.token?.status === 200,
    api: steps.api?.status === 200,
    socket: steps.socket?.first?.opened === true,
  };
  for (const [name, isDone] of Object.entries(done)) {
    byId(`step-${name}`).toggleAttribute("data-done", isDone);
    byId(`${name}-done`).textContent = isDone ? "done" : "";
  }
  byId("ask").disabled = !done.key || done.authorize;
  byId("get-token").disabled = !done.authorize || done.token;
  byId("call-api").disabled = !done.token;
  byId("open-socket").disabled = !done.token;
  byId("make-key").disabled = done.key;
  byId("start-over").disabled = !done.key;
  byId("attacks-hint").hidden = done.token;
  for (const button of document.querySelectorAll("[data-attack], #try-all")) button.disabled = !done.token;
}

on(byId("make-key"), async () => {
  const made = await makeKey();
  await saveKey(made);
  pair = made;
  const jwk = await publicJwk(pair);
  const key = { jwk, jkt: await thumbprint(jwk), refusal: await tryToExport(pair) };
  remember({ instance: settings.instance, key });
  focusResult("key");
  announce("Step 1 is done: you have a key, and nobody can copy its private half.");
});

on(byId("ask"), async () => {
  const metadata = await discover(settings.issuer);
  const { url, state, verifier } = await authorizationRequest({
    metadata, clientId: settings.clientId, redirectUri: REDIRECT_URI, jkt: steps.key.jkt,
  });
  const request = { method: "GET", url, headers: [], body: null };
  remember({ authorization: { request, state, verifier } });
  location.assign(url);
});

async function comeBack() {
  const { search } = location;
  if (!search) return;
  history.replaceState(null, "", REDIRECT_URI);
  try {
    const { state } = steps.authorization ?? {};
    const code = authorizationResponse(search, { state, issuer: settings.issuer });
    remember({ authorization: { ...steps.authorization, code, state: null } });
    byId("step-authorize").scrollIntoView({ behavior: "instant" });
    focusResult("authorize");
    announce("Step 2 is done: you came back with a code.");
  } catch (error) {
    trouble(error.message);
  }
}

on(byId("get-token"), async () => {
  const { code, verifier } = steps.authorization;
  const record = await requestToken(pair, {
    metadata: await discover(settings.issuer),
    parameters: {
      grant_type: "authorization_code", code, client_id: settings.clientId,
      redirect_uri: REDIRECT_URI, code_verifier: verifier,
    },
  });
  const tokens = record.status === 200 ? answerOf(record) : {};
  remember({ token: record, accessToken: tokens.access_token, refreshToken: tokens.refresh_token });
  focusResult("token");
  announce(`Step 3: ${verdict(record)}`);
});

on(byId("call-api"), async () => {
  const url = `${settings.resource}/accounts`;
  const proof = await makeProof(pair, { method: "GET", url, accessToken: steps.accessToken });
  const record = await callApi({ url, accessToken: steps.accessToken, proof });
  remember({ api: record });
  announce(`Step 4: ${verdict(record)}`);
});

on(byId("open-socket"), async () => {
  const url = `${settings.resource}/ticket`;
  const proof = await makeProof(pair, { method: "POST", url, accessToken: steps.accessToken });
  const record = await callApi({ method: "POST", url, accessToken: steps.accessToken, proof });
  const { ticket } = record.status === 200 ? answerOf(record) : {};
  const address = `${settings.resource}/live`;
  const first = ticket && await openSocket(address, ticket);
  const again = ticket && await openSocket(address, ticket);
  remember({ socket: { record, first, again } });
  focusResult("socket");
  announce(`Step 5: ${verdict(record)} ${first?.opened ? `The WebSocket says: ${first.data}` : "No WebSocket."}`);
});

on(byId("start-over"), async () => {
  forget();
  await forgetKey();
  trouble("");
  for (const result of document.querySelectorAll(".attack-result")) result.replaceChildren();
  thiefs.clear();
  showSummary();
  show();
  announce("Everything was deleted.");
  byId("make-key").focus();
});

/** Of all results one is open: the page stays short, and what came last is in sight. */
document.addEventListener("toggle", ({ target }) => {
  if (!target.open || !target.matches(".fold")) return;
  for (const other of document.querySelectorAll(".fold[open]")) if (other !== target) other.open = false;
}, true);

const thiefs = new Map();

function showSummary() {
  byId("summary-table").replaceChildren(summary(attacks, thiefs));
}

async function tryAttack(attack, result) {
  const records = await attack.run({
    pair,
    metadata: await discover(settings.issuer),
    clientId: settings.clientId,
    accessToken: steps.accessToken,
    refreshToken: steps.refreshToken,
    accounts: `${settings.resource}/accounts`,
    transfers: `${settings.resource}/transfers`,
    vault: `${settings.resource}/vault`,
  });
  const { explanations } = settings;
  result.replaceChildren(
    ...records.map((record) => exchange(record, {
      explanations, own: steps.key, open: record.from === "Thief" ? "story" : "none",
    })),
    element("p", { class: "lesson" }, attack.lesson));
  thiefs.set(attack.id, records.findLast(({ from }) => from === "Thief"));
  showSummary();
  announce(`${attack.title}. ${records.map((record) => `${record.from}: ${verdict(record)}`).join(" ")}`);
}

function attackCard(attack) {
  const result = element("div", { class: "attack-result", id: `${attack.id}-result` });
  const button = element("button", {
    type: "button", "data-attack": attack.id,
    "aria-label": `Try it: ${attack.title}`, "aria-describedby": `${attack.id}-story`,
  }, "Try it");
  on(button, () => tryAttack(attack, result));
  return element("li", { class: "attack" },
    element("div", { class: "head" },
      element("div", {},
        element("h3", {}, attack.title),
        element("p", { class: "about", id: `${attack.id}-story` }, attack.story)),
      button),
    result);
}

on(byId("try-all"), async () => {
  for (const attack of attacks) await tryAttack(attack, byId(`${attack.id}-result`));
  for (const open of document.querySelectorAll(".fold[open]")) open.open = false;
  byId("summary-title").scrollIntoView({ block: "start" });
  announce(document.querySelector("#summary-table caption").textContent);
});

byId("attacks").replaceChildren(...attacks.map(attackCard));
showSummary();
for (const [id, origin] of [["page-origin", location.origin], ["issuer", settings.issuer], ["resource", settings.resource]]) {
  byId(id).textContent = origin;
}
show();
await comeBack();
document.documentElement.dataset.ready = "true";
