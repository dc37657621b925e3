// One request and its answer, as a value that can be shown, kept and copied.

const DECISION = "flow-decision";
const SHOWN = ["content-type", "www-authenticate", "dpop-nonce", "cache-control"];

/** Send a request and record the result, also of a failure. */
export async function send({ from, to, method, url, headers = {}, body = null, proof = null, token = null }) {
  const record = { from, to, method, url, headers: Object.entries(headers), body, proof, token };
  try {
    const response = await fetch(url, {
      method, headers, body, cache: "no-store", credentials: "omit", redirect: "error",
    });
    const decision = response.headers.get(DECISION);
    return {
      ...record,
      status: response.status,
      answerHeaders: SHOWN.filter((name) => response.headers.has(name))
        .map((name) => [name, response.headers.get(name)]),
      answer: await response.text(),
      decision: decision && JSON.parse(decision),
    };
  } catch (error) {
    return { ...record, status: null, failure: String(error) };
  }
}

export function answerOf(record) {
  return JSON.parse(record.answer);
}

export function headerOf(record, name) {
  return record.answerHeaders.find(([header]) => header === name)?.[1];
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same request as one line for a shell. */
export function asCurl({ method, url, headers, body }) {
  const words = ["curl", "-i"];
  if (method !== "GET" && !(method === "POST" && body !== null)) words.push("-X", method);
  words.push(quoted(url));
  for (const [name, value] of headers) words.push("-H", quoted(`${name}: ${value}`));
  if (body !== null) words.push("--data-raw", quoted(body));
  return words.join(" ");
}
