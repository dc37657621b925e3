// How exchanges look. Everything becomes text nodes: nothing that a server said is ever HTML.

import { asCurl } from "./exchange.js";
import { meanings } from "./meanings.js";

/** An element with attributes and children; strings become text. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(attribute, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Tokens and proofs are long words: their beginnings and ends will do. */
const shortened = (text) => text.replace(/\S{77,}/g, (word) => `${word.slice(0, 56)}…${word.slice(-12)}`);

function pane(title, open, ...children) {
  return element("details", { open }, element("summary", {}, title), ...children);
}

function copyButton(text, what) {
  const button = element("button", { type: "button", class: "copy" }, `Copy ${what}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied.");
      button.textContent = "Copied";
    } catch {
      announce("The browser does not allow copying here. Select the command below the button by hand.");
      button.textContent = "Select it below";
    }
    setTimeout(() => { button.textContent = `Copy ${what}`; }, 2000);
  });
  return button;
}

/** A request as a curl command, to copy and to read. */
function curl(request) {
  const line = asCurl(request);
  return element("div", { class: "curl" },
    copyButton(line, "as curl"),
    element("details", {}, element("summary", {}, "Show the curl command"), code(line)));
}

function code(text) {
  return element("pre", {}, element("code", {}, text));
}

function http(start, headers, body) {
  const lines = headers.flatMap(([name, value]) => [
    "\n", element("span", { class: "name" }, `${name}: `), shortened(value),
  ]);
  const rest = body ? ["\n\n", body] : [];
  return element("pre", {}, element("code", {}, start, ...lines, ...rest));
}

function requestPane(record, open) {
  const { host, pathname, search } = new URL(record.url);
  const start = `${record.method} ${pathname}${search} HTTP/1.1`;
  const body = record.body?.split("&").map((parameter) => shortened(parameter)).join("\n&");
  return pane("The request", open, http(start, [["Host", host], ...record.headers], body), curl(record));
}

function shownValue(name, value) {
  if (["iat", "exp"].includes(name)) return `${value} (${new Date(value * 1000).toLocaleTimeString()})`;
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}

function members(object, own) {
  const rows = Object.entries(object).map(([name, value]) => {
    const bound = name === "cnf" && own && value.jkt === own.jkt;
    return element("div", {},
      element("dt", {}, name),
      element("dd", {},
        element("code", {}, shownValue(name, value)),
        bound ? element("strong", { class: "bound" }, "✓ your key's thumbprint") : null,
        element("small", {}, meanings[name] ?? "")));
  });
  return element("dl", { class: "members" }, ...rows);
}

function inner(title, open, ...children) {
  return element("details", { class: "inner", open }, element("summary", {}, title), ...children);
}

/** The payload is what most attacks are about; `all` opens the rest too. */
function proofPane(proof, { open, all }) {
  const construction = element("div", {},
    code("ES256(base64url(header) + \".\" + base64url(payload), private key) → signature"),
    element("h5", {}, "Signature base string"), code(proof.signingInput),
    element("h5", {}, "Signature"), code(proof.signature));
  return pane("The proof, decoded", open,
    inner("Header", all, members(proof.header)),
    inner("Payload", true, members(proof.payload)),
    inner("How it was signed", all, construction));
}

function tokenPane(token, own, open) {
  return pane("The access token, decoded", open,
    inner("Header", open, members(token.header)),
    inner("Payload", true, members(token.payload, own)));
}

const MARKS = { passed: "✓", failed: "✗", "not reached": "·", "not asked": "–" };

/** The server's own list, in the server's own order. */
function checksPane(decision, to, { explanations, open }) {
  const rows = decision.checks.map(([name, state]) => element("li", { "data-state": state, "data-check": name },
    element("span", { class: "mark", "aria-hidden": "true" }, MARKS[state]),
    element("code", {}, name),
    element("span", {},
      element("span", { class: state === "passed" ? "hidden" : "state" }, `${state}. `),
      state === "passed" ? element("small", {}, explanations[name] ?? "") : null,
      state === "failed" ? element("small", {}, decision.reason) : null,
      state === "failed" ? found(decision) : null)));
  const passed = decision.checks.filter(([, state]) => state === "passed").length;
  return pane(`The ${to}'s checks: ${passed} passed`, open === "story",
    element("ol", { class: open === "story" ? "checks compact" : "checks" }, ...rows));
}

function found({ expected, actual, hint }) {
  const rows = Object.entries({ expected, found: actual, hint }).filter(([, value]) => value !== null);
  if (!rows.length) return null;
  return element("dl", { class: "found" }, ...rows.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function answerPane(record, open) {
  let body = record.answer;
  try {
    const answer = JSON.parse(body);
    for (const name of ["access_token", "refresh_token", "ticket"]) if (answer[name]) answer[name] = shortened(answer[name]);
    body = JSON.stringify(answer, null, 2);
  } catch { /* not JSON: shown as it came */ }
  return pane("The answer", open, http(`HTTP/1.1 ${record.status}`, record.answerHeaders, body));
}

/** One sentence that says how it ended. */
export function verdict(record) {
  if (record.failure) return `No answer: ${record.failure}`;
  const { decision } = record;
  if (!decision) return `The ${record.to} answered ${record.status}.`;
  if (decision.outcome === "accepted") return `Accepted by the ${record.to}: every check that it made passed.`;
  const by = decision.check ? `Caught by ${decision.check}` : "Refused";
  return `${by}: ${decision.reason}.`;
}

/** What is closed shows its first line only. Of all results on the page one is open: see main.js. */
function fold(state, open, heading, ...panes) {
  return element("article", { class: "exchange" },
    element("details", { class: `fold ${state}`, open }, element("summary", {}, ...heading), ...panes));
}

function headline(record) {
  return [
    element("h4", { tabindex: "-1" },
      element("span", { class: "who" }, `${record.from} → ${record.to}`), " ",
      element("code", {}, `${record.method} ${new URL(record.url).pathname}`), " ",
      element("span", { class: "status" }, String(record.status ?? "no answer"))),
    element("p", { class: "verdict" }, verdict(record)),
  ];
}

/** `open`: "all" shows what was sent and what came, "story" which check caught it, "none" is closed. */
export function exchange(record, { explanations, own, open }) {
  const all = open === "all";
  const left = [requestPane(record, all)];
  if (record.proof) left.push(proofPane(record.proof, { open: all && !record.token, all: false }));
  if (record.token) left.push(tokenPane(record.token, own, false));
  const right = [];
  if (record.decision) right.push(checksPane(record.decision, record.to, { explanations, open }));
  // Beside the check that caught it stands what the thief is told.
  if (!record.failure) (open === "story" ? left : right).push(answerPane(record, open !== "none"));
  const view = fold(record.status === 200 ? "good" : "bad", open !== "none", headline(record),
    element("div", { class: "panes" }, element("div", {}, ...left), element("div", {}, ...right)));
  view.dataset.check = record.decision?.check ?? "";
  return view;
}

/** What came of the ticket: the WebSocket that it opened, and the one that it didn't open a second time. */
export function socketCard({ first, again }) {
  const said = first?.opened
    ? `The WebSocket is open, with the subprotocol ${first.protocol}. It says: ${first.data}`
    : "The WebSocket didn't open.";
  const second = again?.opened ? "It opened once more, which must not be." : "A second WebSocket with the same ticket is refused.";
  return element("p", { class: "lesson", id: "socket-story" }, `${said} ${second}`);
}

export function keyCard({ jwk, jkt, refusal }, { open }) {
  const heading = [
    element("h4", { tabindex: "-1" }, element("span", { class: "who" }, "Your key")),
    element("p", { class: "verdict" }, `exportKey on the private key: ${refusal}. It can sign here, and be copied nowhere.`),
  ];
  return fold("good", open, heading,
    element("div", { class: "panes" },
      element("div", {}, pane("The public key", open, members(jwk))),
      element("div", {}, pane("Its thumbprint (RFC 7638)", open, members({ jkt })))));
}

export function authorizationCard({ request, code: received }, { open }) {
  const parameters = Object.fromEntries(new URL(request.url).searchParams);
  const panes = [element("div", {}, pane("The authorization request", open, members(parameters), curl(request)))];
  if (received) panes.push(element("div", {}, pane("The answer, in the page's address", open, members({ code: received }))));
  const heading = [
    element("h4", { tabindex: "-1" },
      element("span", { class: "who" }, "You → authorization server"), " ",
      element("code", {}, `GET ${new URL(request.url).pathname}`)),
    element("p", { class: "verdict" }, received
      ? "You came back with a code. It is bound to your key before any token exists."
      : "Not answered yet."),
  ];
  return fold(received ? "good" : "", open, heading, element("div", { class: "panes" }, ...panes));
}
