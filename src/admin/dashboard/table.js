// Tables that touch only what changed. The one of backends has nodes only for the rows in sight, all of one height.

import { arrange, count, make, mark, put } from './text.js';

/** Pixels; the style sheet has the same. */
const ROW = 44;
/** Rows beyond the edges. */
const MORE = 6;

/** What a cell is made of: its node, and what changes in it. */
function cell(column) {
  const node = make(column.heads ? 'th' : 'td', column.heads ? { scope: 'row' } : {});
  if (column.css) node.className = column.css;
  return node;
}

function head(columns) {
  const cells = columns.map(({ title, css, hidden }) => {
    const node = make('th', { scope: 'col' }, hidden ? make('span', { class: 'visually-hidden' }, title) : title);
    if (css) node.className = css;
    return node;
  });
  return make('thead', {}, make('tr', {}, ...cells));
}

/** A table of all its rows. A column's `text` is of a row, or its `fill` fills the cell. */
export class Table {
  constructor(table, columns) {
    this.columns = columns;
    this.rows = new Map();
    this.body = make('tbody');
    table.replaceChildren(head(columns), this.body);
  }

  /** Shows these rows; each has a `key` of its own. */
  show(rows) {
    const create = () => make('tr', {}, ...this.columns.map(cell));
    arrange(this.body, this.rows, rows.map(({ key }) => key), create);
    for (const row of rows) fill(this.rows.get(row.key), this.columns, row);
  }
}

function fill(node, columns, row) {
  columns.forEach((column, place) => {
    const inside = node.children[place];
    if (column.fill) column.fill(inside, row);
    else put(inside, column.text(row));
  });
}

/** A sign with its word, for what is told by colour too. */
export function sign(node, state, word) {
  if (node.firstChild === null) node.append(make('span', { class: 'sign', 'aria-hidden': 'true' }), make('span', { class: 'word' }));
  mark(node, 'data-state', state);
  put(node.lastChild, word);
}

/** The backends: sorted, searched, and only those in sight drawn. `columns` have a `value` to sort by, or none. */
export class Backends {
  constructor({ table, scroll, search, filter, shows, columns, status, look, change }) {
    Object.assign(this, { table, scroll, search, filter, shows, columns, status, look, change });
    this.all = [];
    this.shown = [];
    this.nodes = new Map();
    this.sort = { column: columns[0], down: false };
    this.body = make('tbody');
    this.above = make('tr', { class: 'space', 'aria-hidden': 'true' });
    this.below = make('tr', { class: 'space', 'aria-hidden': 'true' });
    this.body.append(this.above, this.below);
    this.table.replaceChildren(this.head(), this.body);
    this.scroll.addEventListener('scroll', () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroll);
    for (const node of [search, filter]) node.addEventListener('input', () => this.order());
    this.body.addEventListener('click', (event) => this.pressed(event));
    this.body.addEventListener('keydown', (event) => this.moved(event));
  }

  head() {
    const cells = this.columns.map((column) => {
      if (!column.value) {
        column.head = make('th', { scope: 'col', class: column.css }, make('span', { class: 'visually-hidden' }, column.title));
        return column.head;
      }
      const button = make('button', { type: 'button' }, column.title, make('i', { 'aria-hidden': 'true' }));
      button.addEventListener('click', () => {
        const again = this.sort.column === column;
        this.sort = { column, down: again ? !this.sort.down : Boolean(column.largest) };
        this.order();
      });
      column.head = make('th', { scope: 'col' }, button);
      if (column.css) column.head.className = column.css;
      return column.head;
    });
    return make('thead', {}, make('tr', {}, ...cells));
  }

  /** Other backends than before: rows with a `key`, a `words` to search in, and their `place`. */
  replace(rows) {
    this.all = rows;
    this.order();
  }

  /** Their numbers are new. */
  update() {
    // Rows do not run away from who is about to press one.
    if (this.body.matches(':hover') || this.body.contains(document.activeElement)) this.draw();
    else this.order();
  }

  order() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = this.filter.value;
    const fits = (row) =>
      (wanted === 'all' || wanted === this.status(row)) && words.every((word) => row.words.includes(word));
    const { column, down } = this.sort;
    const turn = down ? -1 : 1;
    const compare = (one, two) => {
      const [a, b] = [column.value(one), column.value(two)];
      // What is not known comes last, whichever way.
      if (a === null || b === null) return (a === null) - (b === null) || one.place - two.place;
      const differ = typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b;
      return differ * turn || one.place - two.place;
    };
    this.shown = this.all.filter(fits).sort(compare);
    for (const each of this.columns) {
      if (each === column) mark(each.head, 'aria-sort', down ? 'descending' : 'ascending');
      else if (each.head.hasAttribute('aria-sort')) each.head.removeAttribute('aria-sort');
    }
    const all = this.all.length;
    put(this.shows, this.shown.length === all ? `${count(all)} shown` : `${count(this.shown.length)} of ${count(all)} shown`);
    mark(this.table, 'aria-rowcount', String(this.shown.length + 1));
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - MORE);
    const last = Math.min(this.shown.length, Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / ROW) + MORE);
    const seen = this.shown.slice(first, Math.max(last, first));
    const create = () => make('tr', {}, ...this.columns.map(cell));
    arrange(this.body, this.nodes, seen.map(({ key }) => key), create, this.above.nextSibling, this.below);
    seen.forEach((row, place) => {
      const node = this.nodes.get(row.key);
      mark(node, 'aria-rowindex', String(first + place + 2));
      mark(node, 'data-place', String(row.place));
      fill(node, this.columns, row);
    });
    this.space(this.above, first);
    this.space(this.below, this.shown.length - Math.max(last, first));
  }

  space(node, rows) {
    const height = `${rows * ROW}px`;
    if (node.style.height !== height) node.style.height = height;
  }

  pressed(event) {
    const button = event.target.closest('button');
    if (button === null) return;
    const row = this.all[Number(button.closest('tr').dataset.place)];
    if (button.matches('.more')) this.change(row, button);
    else this.look(row);
  }

  /** From row to row by the arrow keys. */
  moved(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    const row = event.target.closest('tr');
    if (step === undefined || row === null) return;
    event.preventDefault();
    const at = Number(row.getAttribute('aria-rowindex')) - 2;
    const to = Math.min(Math.max(at + step, 0), this.shown.length - 1);
    const top = to * ROW;
    const room = this.scroll.clientHeight - this.table.tHead.offsetHeight - ROW;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top > this.scroll.scrollTop + room) this.scroll.scrollTop = top - room;
    this.draw();
    const column = [...row.querySelectorAll('button')].indexOf(event.target);
    const buttons = this.nodes.get(this.shown[to].key)?.querySelectorAll('button') ?? [];
    (buttons[column] ?? buttons[0])?.focus({ preventScroll: true });
  }
}
