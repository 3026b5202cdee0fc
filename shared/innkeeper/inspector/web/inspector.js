// The page: signs in, finds out what to show from the address, and looks anew every second.
import { get, post, Refused } from "./api.js";
import { h, keyed, number, write } from "./dom.js";
import { Processes } from "./processes.js";
import { Room } from "./room.js";
import { Rooms } from "./rooms.js";

const EVERY_MS = 1000;
const SAID_MS = 6000;
const $ = (id) => document.getElementById(id);

const FIGURES = [
  ["rooms", ({ rooms }) => rooms, "#/"],
  ["owned", ({ owned }) => owned, "#/?order=owner&descending=1"],
  ["stuck", ({ stuck }) => stuck, "#/?stuck=1"],
  ["members", ({ members }) => members, "#/?order=members"],
  ["events/s", ({ events_s: rate }) => rate, "#/?order=events_s"],
  ["workers", ({ workers }) => workers.length, "#/processes"],
  ["edges", ({ edges }) => edges.length, "#/processes"],
];

class App {
  constructor() {
    this.views = { rooms: new Rooms(this), room: new Room(this), processes: new Processes(this) };
    this.isLive = true;
    this.turn = 0;
    this.list = "#/";
    addEventListener("hashchange", () => this.open());
    addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => !document.hidden && this.go());
    $("live").addEventListener("click", () => this.#setLive(!this.isLive));
    $("help-button").addEventListener("click", () => $("help").showModal());
    $("sign-out").addEventListener("click", () => this.#signOut());
    $("login").addEventListener("cancel", (event) => event.preventDefault());
    $("login").querySelector("form").addEventListener("submit", (event) => this.#signIn(event));
  }

  async start() {
    const given = new URLSearchParams(location.hash.slice(1)).get("password");
    if (given !== null) {
      history.replaceState(null, "", "#/"); // it stays in no address bar, and goes into no bookmark
      try {
        await post("login", { password: given });
      } catch (error) {
        this.#askPassword(error.message);
      }
    }
    this.open();
  }

  /** Show what the address says. */
  open() {
    const [path, query] = location.hash.replace(/^#?/, "").split("?");
    const [, page, kind, name] = path.split("/");
    const which = page === "rooms" && kind && name ? "room" : page === "processes" ? "processes" : "rooms";
    const isOther = this.view !== this.views[which];
    if (which === "rooms") this.list = location.hash || "#/";
    this.view = this.views[which];
    this.view.open(new URLSearchParams(query), `${kind}/${name}`);
    document.title = which === "room" ? `${kind}/${name} – Innkeeper` : "Innkeeper inspector";
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === which) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (isOther) {
      $("main").replaceChildren(this.view.element);
      if (this.overview) $("main").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    this.go();
  }

  back() {
    location.hash = this.list;
  }

  /** Look now, or in a moment, and then every second. */
  go(waitMs = 0) {
    clearTimeout(this.timer);
    const turn = ++this.turn;
    this.timer = setTimeout(() => this.#look(turn), waitMs);
  }

  async #look(turn) {
    if (document.hidden || $("login").open) return;
    try {
      this.overview = await get("overview");
      if (turn !== this.turn) return; // somebody wants something else by now
      this.#showWhole();
      await this.view.refresh();
      this.#problem("");
    } catch (error) {
      if (turn !== this.turn) return;
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) {
        this.#askPassword("");
        return;
      }
      this.#problem(`${error.message}. What is shown is from before.`);
    }
    if (turn === this.turn && this.isLive) this.go(EVERY_MS);
  }

  #showWhole() {
    write($("redis"), this.overview.redis + (this.overview.read_only ? " (read only)" : ""));
    keyed(
      $("figures"), FIGURES, ([name]) => name,
      ([name, , href]) => h("li", {}, h("a", { href }, h("b"), h("span", {}, name))),
      (item, [name, of]) => {
        const value = of(this.overview);
        write(item.querySelector("b"), number(value));
        item.classList.toggle("bad", name === "stuck" && value > 0);
      },
    );
  }

  #problem(text) {
    $("problem").hidden = !text;
    write($("problem"), text);
    document.body.classList.toggle("stale", Boolean(text));
  }

  #setLive(isLive) {
    this.isLive = isLive;
    $("live").setAttribute("aria-pressed", String(isLive));
    write($("live").lastElementChild, isLive ? "live" : "stopped");
    if (isLive) this.go();
    else clearTimeout(this.timer);
  }

  // --- deeds -------------------------------------------------------------------------------------------------------
  /** Have something done; say what came of it; return whether it was done. */
  async do(deed, body) {
    try {
      const { done } = await post(deed, body);
      this.#say(done, false);
    } catch (error) {
      this.failed(error);
      return false;
    }
    this.go();
    return true;
  }

  failed(error) {
    if (error.status === 401) this.#askPassword("");
    else this.#say(error.message, true);
  }

  #say(text, isBad) {
    clearTimeout(this.saying);
    const said = $("said");
    said.classList.toggle("bad", isBad);
    write(said, text);
    this.saying = setTimeout(() => write(said, ""), SAID_MS);
  }

  /** Ask whether something is meant; resolves to true or false. */
  confirm(title, text, yes) {
    const dialog = $("confirm");
    write($("confirm-title"), title);
    $("confirm-text").replaceChildren(text);
    write($("confirm-yes"), yes);
    dialog.querySelector('[value="no"]').hidden = false;
    return this.#asked(dialog);
  }

  /** Show a long text until somebody closes it. */
  read(title, text) {
    const dialog = $("confirm");
    write($("confirm-title"), title);
    $("confirm-text").replaceChildren(h("pre", { tabindex: "0" }, text));
    write($("confirm-yes"), "Close");
    dialog.querySelector('[value="no"]').hidden = true;
    return this.#asked(dialog);
  }

  #asked(dialog) {
    dialog.showModal();
    const form = dialog.querySelector("form");
    return new Promise((resolve) => {
      // Not by "close": that comes later, maybe after the next question.
      const answered = (event) => {
        form.removeEventListener("submit", answered);
        dialog.removeEventListener("cancel", answered);
        resolve(event.submitter?.value === "yes");
      };
      form.addEventListener("submit", answered);
      dialog.addEventListener("cancel", answered);
    });
  }

  // --- who looks ---------------------------------------------------------------------------------------------------
  #askPassword(problem) {
    write($("login-problem"), problem);
    if (!$("login").open) $("login").showModal();
    $("password").focus();
  }

  async #signIn(event) {
    event.preventDefault();
    try {
      await post("login", { password: $("password").value });
    } catch (error) {
      this.#askPassword(error.message);
      return;
    }
    $("password").value = "";
    $("login").close();
    this.go();
  }

  async #signOut() {
    await post("logout", {});
    location.reload();
  }

  // --- keys --------------------------------------------------------------------------------------------------------
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const own = { "?": () => $("help").showModal(), l: () => this.#setLive(!this.isLive) };
    if (own[event.key]) own[event.key]();
    else if (!this.view.key(event)) return;
    event.preventDefault();
  }
}

new App().start();
