// One room: what its keys say, and what can be done to it.
import { get } from "./api.js";
import { h, moment, number, seconds, shown, Table, write } from "./dom.js";

const FACTS = [
  ["owner", ({ lock, lease_ms: left }) => (lock ? `${lock} (lease ${left} ms)` : "none: it sleeps, or waits for one")],
  ["lag", ({ row }) => (row.lag ? `${number(row.lag)} event(s), the oldest ${seconds(row.lag_s)}` : "nothing waits")],
  ["events/s", ({ events_s: rate }) => number(rate)],
  ["commits", ({ meta }) => meta.version ?? "0"],
  ["last event", ({ meta }) => meta.cursor ?? "0"],
  ["last output", ({ meta }) => meta.last ?? "–"],
  ["claims", ({ meta }) => meta.epoch ?? "0"],
  ["owes", ({ outbox }) => `${number(outbox)} effect(s)`],
];

const text = (title, of, name = "") => ({ title, class: name, cell: of });
const json = (title, of) => ({ title, class: "json", cell: (item) => shown(of(item)) });

export class Room {
  constructor(app) {
    this.app = app;
    this.title = h("h2", { class: "id" });
    this.trouble = h("p", { class: "banner", role: "status", hidden: true });
    this.facts = h("dl", { class: "facts" });
    for (const [name] of FACTS) this.facts.append(h("div", {}, h("dt", {}, name), h("dd")));
    this.sections = this.#makeSections();
    this.message = h("textarea", { id: "message", rows: "2", spellcheck: "false", placeholder: '{"text": "hello"}' });
    this.send = h(
      "form", { class: "send", onsubmit: (event) => this.#send(event) },
      h("label", { class: "wide" }, "Message for on_post: JSON, or text", this.message),
      h("button", { type: "submit" }, "Send"),
    );
    this.deeds = h(
      "div", { class: "deeds" },
      this.#button("Wake", () => this.#do("wake")),
      this.#button("Evict", () => this.#evict()),
    );
    this.element = h(
      "section", { "aria-label": "Room", class: "blocks" },
      h("div", { class: "head" }, h("a", { href: "#/", class: "back" }, "← rooms"), this.title, this.deeds),
      this.trouble, this.facts,
      ...Object.values(this.sections).map(({ element }) => element),
      h("h3", {}, "Send"), this.send,
    );
  }

  open(_query, room) {
    const isOther = this.room !== room;
    this.room = room;
    write(this.title, room);
    if (isOther) {
      this.message.value = "";
      for (const { filter, table } of Object.values(this.sections)) {
        if (filter) filter.value = "";
        table.show([]);
      }
    }
  }

  async refresh() {
    const { members, state } = this.sections;
    const found = await get("room", { room: this.room, member: members.filter.value, key: state.filter.value });
    if (found.row.room !== this.room) return; // another one was opened meanwhile
    const readOnly = this.app.overview.read_only;
    this.element.classList.toggle("read-only", readOnly);
    this.trouble.hidden = found.exists && !found.trouble;
    write(this.trouble, found.exists ? found.trouble : `There is no room ${this.room} (any more).`);
    FACTS.forEach(([, of], n) => write(this.facts.children[n].lastChild, of(found)));
    this.#fill("state", Object.entries(found.state), found.state_count, `, ${number(found.state_bytes)} bytes`);
    this.#fill("members", Object.entries(found.members), found.member_count);
    this.#fill("timers", Object.entries(found.timers), found.timer_count);
    this.#fill("inbox", found.inbox, found.row.lag);
    this.#fill("outputs", found.outputs, found.outputs.length);
    this.#fill("dead", found.dead, found.dead.length);
  }

  key(event) {
    if (event.key !== "Escape") return false;
    this.app.back();
    return true;
  }

  #makeSections() {
    const named = ([name]) => name;
    const idOf = ({ id }) => id;
    return {
      inbox: this.#section("Waiting events", [
        text("id", idOf, "id"), text("type", ({ type }) => type), text("connection", ({ connection }) => connection, "id"),
        json("data", ({ data }) => data ?? ""),
      ], idOf, "nothing waits"),
      dead: this.#section("Put aside", [
        text("entry", ({ entry }) => entry, "id"), text("type", ({ t, type }) => type ?? t ?? ""),
        { title: "error", class: "trouble", make: (event) => this.#deadText(event) },
        { title: "", class: "acts", make: ({ entry }) => this.#deadDeeds(entry) },
      ], ({ entry }) => entry, "nothing was put aside"),
      members: this.#section("Members", [
        text("connection", named, "id main"), text("user", ([, { user }]) => user.filter(Boolean).join(" · ")),
        text("edge", ([, { edge }]) => edge, "id"),
        text("socket", ([, row]) => (row.is_up ? (row.is_session ? "session" : "raw") : "away")),
        json("state", ([, { state }]) => state), text("tags", ([, { tags }]) => tags.join(" ")),
        { title: "", class: "acts", make: ([name]) => this.#button("Kick", () => this.#kick(name)) },
      ], named, "nobody is in", "connection or user"),
      state: this.#section("State", [
        text("key", named, "main"),
        { title: "value", class: "json", cell: ([, value]) => (value === null ? "null" : shown(value)) },
        { title: "", class: "acts", make: ([name]) => this.#button("Whole", (event) => this.#whole(event, name), "look") },
      ], named, "no keys", "key"),
      timers: this.#section("Timers", [
        text("name", named, "main"), text("due", ([, { due }]) => moment(due)),
        text("fired", ([, { fired }]) => (fired ? "yes" : "")), json("payload", ([, { payload }]) => payload),
      ], named, "none"),
      outputs: this.#section("Last outputs", [
        text("id", idOf, "id"), text("to", ({ header }) => header, "id"), json("frame", ({ body }) => body ?? ""),
      ], idOf, "none"),
    };
  }

  #section(title, columns, keyOf, empty, filtered = "") {
    const table = new Table(columns, keyOf, { caption: title, empty });
    const count = h("span", { class: "quiet" });
    const filter = filtered
      ? h("input", { type: "search", "aria-label": `${title}: ${filtered}`, placeholder: filtered, oninput: () => this.app.go(200) })
      : null;
    const element = h("div", { class: "block" }, h("h3", {}, `${title} `, count), filter, table.element);
    return { element, table, count, filter };
  }

  #fill(name, rows, count, more = "") {
    const section = this.sections[name];
    section.table.show(rows);
    const some = count > rows.length ? `${number(rows.length)} of ${number(count)}` : number(count);
    write(section.count, count ? some + more : "");
  }

  #button(label, onclick, kind = "deed") {
    return h("button", { type: "button", class: `plain ${kind}`, onclick }, label);
  }

  #deadText(event) {
    const lines = Object.entries(event).filter(([name]) => !["entry", "error"].includes(name));
    const list = lines.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("pre", {}, value))));
    return h("details", {}, h("summary", {}, event.error ?? "?"), h("dl", {}, ...list));
  }

  #deadDeeds(entry) {
    return h(
      "div", { class: "row" },
      this.#button("Retry", () => this.#do("retry", { entry })),
      this.#button("Drop", async () => {
        const sure = await this.app.confirm("Delete this event?", `${entry} of ${this.room} is gone for good then.`, "Delete");
        if (sure) await this.#do("drop", { entry });
      }),
    );
  }

  async #kick(connection) {
    const sure = await this.app.confirm(`Kick ${connection}?`, "Its socket is closed with 4405; a session ends.", "Kick");
    if (sure) await this.#do("kick", { connection });
  }

  async #evict() {
    const sure = await this.app.confirm(
      `Evict ${this.room}?`, "Its owner gives it back, and it starts anew from its state. Sockets stay.", "Evict",
    );
    if (sure) await this.#do("evict");
  }

  async #send(event) {
    event.preventDefault();
    let message = this.message.value;
    try {
      message = JSON.parse(message);
    } catch {
      // text
    }
    if (await this.#do("send", { message })) this.message.value = "";
  }

  async #whole(event, key) {
    const cell = event.target.closest("tr").children[1];
    try {
      const { text: whole } = await get("value", { room: this.room, key });
      await this.app.read(`${this.room}: ${key}`, pretty(whole));
    } catch (error) {
      this.app.failed(error);
    }
    cell.focus();
  }

  #do(deed, body = {}) {
    return this.app.do(deed, { room: this.room, ...body });
  }
}

function pretty(whole) {
  try {
    return JSON.stringify(JSON.parse(whole), null, 2);
  } catch {
    return whole;
  }
}
