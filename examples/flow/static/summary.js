// What the thief sees: of each attack, what was had, what was tried, and all that the servers' answer says.

import { element } from "./view.js";

/** What an answer says to whoever sent the request: the rest stays in the servers' own logs. */
export function told(record) {
  if (record.failure) return "no answer";
  try {
    const { error, error_description: description } = JSON.parse(record.answer);
    return `${record.status} ${error ?? ""}: ${description ?? ""}`;
  } catch {
    return `${record.status} ${record.answer}`;
  }
}

function row({ title, stolen }, record) {
  const caught = record ? record.decision?.check ?? "nobody" : "";
  return element("tr", { "data-tried": Boolean(record), "data-caught": caught },
    element("th", { scope: "row" }, title),
    element("td", {}, stolen),
    element("td", {}, record ? element("code", {}, told(record)) : "not tried yet"),
    element("td", {}, caught ? element("code", {}, caught) : ""));
}

/** The table of all attacks; `records` maps an attack's id to the thief's last exchange. */
export function summary(attacks, records) {
  const tried = attacks.filter(({ id }) => records.has(id));
  const inside = tried.filter(({ id }) => records.get(id).status === 200);
  const count = `${tried.length} of ${attacks.length} tried, ${inside.length || "none"} got in.`;
  return element("table", {},
    element("caption", {}, count),
    element("thead", {}, element("tr", {}, ...["The attack", "What was stolen", "What the thief is told", "Caught by"]
      .map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...attacks.map((attack) => row(attack, records.get(attack.id)))));
}
