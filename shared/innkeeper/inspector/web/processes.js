// Workers and edges, and what went wrong since the counters were made.
import { h, number, seconds, Table, write } from "./dom.js";

const signOfLife = {
  title: "heartbeat", right: true,
  renew: (cell, { row }) => {
    const silent = row.silent_s > 1.5;
    write(cell, silent ? `silent for ${seconds(row.silent_s)}` : `${row.silent_s.toFixed(1)} s ago`);
    cell.classList.toggle("bad", silent);
  },
};
const roomsOf = {
  title: "rooms", right: true,
  make: ({ row }) => h("a", { href: `#/?owner=${encodeURIComponent(row.name)}` }, ""),
  renew: (cell, { row }) => write(cell.firstChild, number(row.rooms)),
};
const ofLoad = (title, text) => ({ title, right: true, cell: ({ row, load }) => (load && row.silent_s < 5 ? text(load) : "–") });

const WORKERS = [
  { title: "worker", class: "id main", cell: ({ row }) => row.name },
  signOfLife,
  roomsOf,
  ofLoad("CPU", (load) => `${Math.round(load.cpu * 100)} %`),
  ofLoad("events/s", (load) => number(load.events_s)),
  ofLoad("loop lag", (load) => `${load.loop_lag_ms.toFixed(0)} ms`),
  ofLoad("limit", (load) => (load.max_rooms ? number(load.max_rooms) : "none")),
  { title: "kinds", cell: ({ load }) => load?.kinds.join(" ") ?? "–" },
  { title: "state", cell: ({ load }) => (load?.draining ? "leaving" : "") },
];
const EDGES = [
  { title: "edge", class: "id main", cell: ({ row }) => row.name },
  signOfLife,
  { title: "rooms", right: true, cell: ({ row }) => number(row.rooms) },
];
const COUNTERS = [
  { title: "what", class: "main", cell: ([name]) => name.replaceAll("_", " ") },
  { title: "how often", right: true, cell: ([, count]) => number(count) },
];

export class Processes {
  constructor(app) {
    this.app = app;
    const name = ({ row }) => row.name;
    this.workers = new Table(WORKERS, name, { caption: "Workers", empty: "No worker runs: rooms wait." });
    this.edges = new Table(EDGES, name, { caption: "Edges", empty: "No edge runs: nobody can connect." });
    this.counters = new Table(COUNTERS, ([what]) => what, { caption: "What went wrong", empty: "Nothing." });
    this.element = h(
      "section", { "aria-label": "Workers and edges", class: "blocks" },
      h("h2", {}, "Workers"), this.workers.element,
      h("h2", {}, "Edges"), this.edges.element,
      h("h2", {}, "What went wrong, ever"), this.counters.element,
    );
  }

  open() {}

  async refresh() {
    const { workers, edges, counters } = this.app.overview;
    this.workers.show(workers);
    this.edges.show(edges.map((row) => ({ row })));
    this.counters.show(Object.entries(counters).sort());
  }

  key() {
    return false;
  }
}
