// Making and renewing parts of the page. All text goes in as text: nothing that comes from a room is ever markup.

/** Make an element. `props` are attributes; `on…` are listeners, `class` and `data-…` as in HTML. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set an element's text if it changed, so that a selection in it stays. */
export function write(element, text) {
  const shown = String(text ?? "");
  if (element.textContent !== shown) element.textContent = shown;
}

/** Keep `parent`'s children in step with `items`: one child per key, made once, renewed in place, so focus stays. */
export function keyed(parent, items, keyOf, make, renew) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    renew(child, item);
    if (child === at) at = at.nextElementSibling;
    else if (!child.contains(document.activeElement) || !at) parent.insertBefore(child, at);
    else {
      // Moving the row that has the focus would take it away: the others move around it.
      while (at && at !== child) {
        const next = at.nextElementSibling;
        parent.append(at);
        at = next;
      }
      at = child.nextElementSibling;
    }
  }
  for (const child of known.values()) child.remove();
}

/** A table whose rows are renewed in place. `columns`: {name, title, cell(item) → text or node, right, class}. */
export class Table {
  constructor(columns, keyOf, { caption, empty = "none", onMake } = {}) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.onMake = onMake;
    this.heads = columns.map((column) => h("th", { scope: "col", class: column.right ? "right" : null }, column.title));
    this.body = h("tbody");
    this.empty = h("p", { class: "quiet empty" }, empty);
    const head = h("thead", {}, h("tr", {}, ...this.heads));
    this.table = h("table", {}, h("caption", { class: "unseen" }, caption), head, this.body);
    this.element = h("div", { class: "table" }, this.table, this.empty);
  }

  show(items) {
    this.table.hidden = items.length === 0;
    this.empty.hidden = items.length > 0;
    keyed(this.body, items, this.keyOf, (item) => this.#make(item), (row, item) => this.#renew(row, item));
  }

  #make(item) {
    const row = h("tr");
    for (const column of this.columns) {
      const cell = h("td", { class: [column.right && "right", column.class].filter(Boolean).join(" ") || null, "data-title": column.title });
      if (column.make) cell.append(column.make(item));
      row.append(cell);
    }
    this.onMake?.(row, item);
    return row;
  }

  #renew(row, item) {
    this.columns.forEach((column, n) => {
      const cell = row.children[n];
      if (column.renew) column.renew(cell, item);
      else if (!column.make) write(cell, column.cell(item));
    });
  }
}

/** A value as one reads it: JSON with spaces, text as it is, nothing for null. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value, null, 1).replaceAll(/\n\s*/g, " ");
}

/** A number of seconds, short. */
export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

/** A rate or a large number, short. */
export function number(value) {
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

/** A moment (Unix seconds) in the reader's own time. */
export function moment(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  return Number.isNaN(date.getTime()) ? String(unixSeconds) : date.toLocaleString();
}
