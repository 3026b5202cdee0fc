// The list of rooms: searched, filtered, sorted, a page at a time.
import { get } from "./api.js";
import { h, number, seconds, Table, write } from "./dom.js";

const PAGE = 50;
const DESCENDING_FIRST = new Set(["lag", "members", "events_s", "trouble"]);

/** The hash of a room's own page. */
export const roomHash = (room) => `#/rooms/${room}`;

const COLUMNS = [
  {
    name: "room", title: "room", class: "main",
    make: ({ row }) => h("a", { href: roomHash(row.room) }, row.room),
  },
  { name: "owner", title: "owner", class: "id", cell: ({ row }) => row.owner || (row.is_woken ? "(woken)" : "–") },
  { name: "lag", title: "lag", right: true, cell: ({ row }) => (row.lag ? `${number(row.lag)} · ${seconds(row.lag_s)}` : "0") },
  { name: "members", title: "members", right: true, cell: ({ row }) => number(row.members) },
  { name: "events_s", title: "events/s", right: true, cell: ({ events_s }) => number(events_s) },
  {
    name: "trouble", title: "what is wrong", class: "trouble",
    renew: (cell, { trouble }) => {
      write(cell, trouble);
      cell.classList.toggle("nothing", !trouble);
    },
  },
];

export class Rooms {
  constructor(app) {
    this.app = app;
    this.search = h("input", {
      type: "search", id: "search", placeholder: "part of kind/name", spellcheck: "false", autocomplete: "off",
      oninput: () => this.#changed(300), onkeydown: (event) => this.#searched(event),
    });
    this.kind = h("select", { id: "kind", onchange: () => this.#changed() });
    this.owner = h("select", { id: "owner", onchange: () => this.#changed() });
    this.stuck = h("input", { type: "checkbox", id: "stuck", onchange: () => this.#changed() });
    this.named = h("p", { class: "named", hidden: true });
    this.table = new Table(COLUMNS, ({ row }) => row.room, { caption: "Rooms", empty: "No room fits." });
    this.count = h("span", { class: "quiet", id: "count" });
    this.before = h("button", { type: "button", class: "plain", onclick: () => this.turn(-1) }, "Previous");
    this.after = h("button", { type: "button", class: "plain", onclick: () => this.turn(1) }, "Next");
    this.#makeHeads();
    this.element = h(
      "section", { "aria-label": "Rooms" },
      h(
        "div", { class: "filters" },
        h("label", { class: "wide" }, "Search", this.search),
        h("label", {}, "Kind", this.kind),
        h("label", {}, "Owner", this.owner),
        h("label", { class: "check" }, this.stuck, "stuck only"),
      ),
      this.named,
      this.table.element,
      h("div", { class: "pages" }, this.count, this.before, this.after),
    );
  }

  /** Take what the address says: `#/?search=…&kind=…&owner=…&stuck=1&order=…&descending=…&offset=…`. */
  open(query) {
    const wanted = query.get("search") ?? "";
    if (this.search.value.trim() !== wanted) this.search.value = wanted;
    this.wantedKind = query.get("kind") ?? "";
    this.wantedOwner = query.get("owner") ?? "";
    this.stuck.checked = query.get("stuck") === "1";
    this.order = query.get("order") ?? "lag";
    this.descending = query.get("descending") ?? (DESCENDING_FIRST.has(this.order) ? "1" : "0");
    this.offset = Number(query.get("offset") ?? 0) || 0;
    for (const [n, { name }] of COLUMNS.entries()) {
      const word = this.descending === "1" ? "descending" : "ascending";
      this.table.heads[n].setAttribute("aria-sort", name === this.order ? word : "none");
    }
  }

  async refresh() {
    this.#choices(this.kind, ["", ...this.app.overview.kinds], this.wantedKind, "all");
    const owners = this.app.overview.workers.map(({ row }) => row.name);
    this.#choices(this.owner, ["", "-", ...owners], this.wantedOwner, "any");
    const query = this.#query();
    const answer = await get("rooms", { ...query, limit: PAGE });
    if (answer.rooms.length === 0 && this.offset > 0) {
      this.turn(-1);
      return;
    }
    this.#name(answer.named);
    this.table.show(answer.rooms);
    const last = answer.offset + answer.rooms.length;
    const { took_s: took, rooms } = this.app.overview;
    const delay = took > 0.5 ? `; which rooms, and their order, anew every ${seconds(took * 10)}` : "";
    const some = answer.count === rooms ? "" : ` (of ${number(rooms)})`;
    write(this.count, answer.count ? `${number(answer.offset + 1)}–${number(last)} of ${number(answer.count)}${some}${delay}` : "");
    this.before.disabled = answer.offset === 0;
    this.after.disabled = last >= answer.count;
  }

  key(event) {
    const links = [...this.table.body.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const acts = {
      "/": () => this.search.select(),
      s: () => this.stuck.click(),
      j: () => links[Math.min(at + 1, links.length - 1)]?.focus(),
      k: () => links[Math.max(at - 1, 0)]?.focus(),
      n: () => this.after.click(),
      p: () => this.before.click(),
    };
    acts[event.key]?.();
    return event.key in acts;
  }

  turn(pages) {
    this.offset = Math.max(0, this.offset + pages * PAGE);
    this.#go();
  }

  #makeHeads() {
    COLUMNS.forEach(({ name, title }, n) => {
      const sort = () => {
        const again = this.order === name;
        const first = DESCENDING_FIRST.has(name) ? "1" : "0";
        this.descending = again ? String(1 - Number(this.descending)) : first;
        this.order = name;
        this.#changed();
      };
      this.table.heads[n].replaceChildren(h("button", { type: "button", class: "sort", onclick: sort }, title));
    });
  }

  #choices(select, values, wanted, any) {
    const all = values.includes(wanted) ? values : [...values, wanted];
    if ([...select.options].map(({ value }) => value).join("\n") !== all.join("\n")) {
      const words = { "": any, "-": "none" };
      select.replaceChildren(...all.map((value) => h("option", { value }, words[value] ?? value)));
    }
    if (document.activeElement !== select || select.value !== wanted) select.value = wanted;
  }

  #searched(event) {
    if (event.key === "Enter") {
      clearTimeout(this.timer);
      const named = this.search.value.trim();
      if (this.named.dataset.room === named && named) location.hash = roomHash(named);
      else this.#changed();
    }
  }

  #name(room) {
    this.named.hidden = !room;
    if (this.named.dataset.room === room) return;
    this.named.dataset.room = room;
    this.named.replaceChildren("Rooms at rest stand in no list: ", h("a", { href: roomHash(room) }, `look at ${room}`));
  }

  #changed(waitMs = 0) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.wantedKind = this.kind.value;
      this.wantedOwner = this.owner.value;
      this.offset = 0;
      this.#go();
    }, waitMs);
  }

  #query() {
    return {
      search: this.search.value.trim(), kind: this.wantedKind, owner: this.wantedOwner,
      stuck: this.stuck.checked ? "1" : "", order: this.order, descending: this.descending, offset: String(this.offset),
    };
  }

  #go() {
    const kept = Object.entries(this.#query()).filter(([name, value]) => value && !(name === "offset" && value === "0"));
    this.app.list = kept.length ? `#/?${new URLSearchParams(kept)}` : "#/";
    history.replaceState(null, "", this.app.list);
    this.app.open();
  }
}
