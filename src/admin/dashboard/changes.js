// Changes of a backend: a menu, a question that says what will happen, and only then the call.

import { clock, make, mark, plural, put } from './text.js';

/** What each entry of the menu sends, and says that it will do. `rows` are the addresses of one entry. */
const CHANGES = {
  drain: {
    act: 'Drain',
    body: () => ({ state: 'drain' }),
    does: (name) => `${name} gets no new connections. Its health checks go on.`,
  },
  ready: {
    act: 'Make ready',
    body: () => ({ state: 'ready' }),
    does: (name, rows) => `${name} gets new connections again${rows[0].checked ? ' while its health checks pass' : ''}.`,
  },
  maintenance: {
    act: 'Put into maintenance',
    body: () => ({ state: 'maintenance' }),
    does: (name) => `${name} gets no new connections and no health checks.`,
  },
  weight: {
    act: 'Set the weight of',
    body: (weight) => ({ weight }),
    does: (name, rows) => `${name} gets its share of new connections by its weight, which is ${rows[0].weight} now. With 0 it gets none.`,
  },
};

/** What becomes of the connections that there are. */
function stay(rows) {
  const open = rows.reduce((total, row) => total + (row.open ?? 0), 0);
  if (open === 0) return 'It has no open connections.';
  return open === 1 ? 'Its open connection stays until it ends by itself.' : `Its ${plural(open, 'open connection', 'open connections')} stay until they end by themselves.`;
}

export class Changes {
  /**
   * `rows` gives all backends, `send` makes a change and rejects with the reason, `nodes` are the menu, the dialog and
   * what is in it.
   */
  constructor({ menu, menuTitle, dialog, form, title, text, warning, field, weight, error, cancel, confirm, outcome, rows, send }) {
    Object.assign(this, { menu, menuTitle, dialog, title, text, warning, field, weight, error, confirm, outcome, rows, send });
    /** Whether the instance takes changes from this page. */
    this.allowed = false;
    this.target = null;
    this.opener = null;
    this.kind = null;
    menu.addEventListener('click', (event) => this.ask(event.target.closest('[data-change]')?.dataset.change));
    menu.addEventListener('keydown', (event) => this.moved(event));
    // A press must not take the focus away, which closes the menu.
    menu.addEventListener('mousedown', (event) => event.preventDefault());
    menu.addEventListener('focusout', (event) => menu.contains(event.relatedTarget) || this.close());
    window.addEventListener('resize', () => this.close());
    // Of a scroll that ended before the menu was opened, the event may come after.
    document.addEventListener('scroll', () => this.hasMoved() && this.close(), { capture: true, passive: true });
    cancel.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => this.back());
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.make();
    });
  }

  /** Fills the cell of a row: with a button, where changes are possible. */
  button(node, row) {
    const wanted = this.allowed && row.state !== 'leaving';
    if (wanted !== (node.firstChild !== null)) {
      const inside = () => [make('span', { 'aria-hidden': 'true' }, '⋯'), make('span', { class: 'visually-hidden' })];
      node.replaceChildren(...(wanted ? [make('button', { type: 'button', class: 'more', 'aria-haspopup': 'menu' }, ...inside())] : []));
    }
    if (wanted) put(node.firstChild.lastChild, `Change ${row.name}`);
  }

  /** Opens the menu of a row beside the button that was pressed. */
  open(row, opener) {
    this.target = { pool: row.pool, entry: row.entry };
    this.opener = opener;
    const now = row.state ?? 'ready';
    put(this.menuTitle, this.name());
    mark(this.menu, 'aria-label', `Change ${this.name()}`);
    for (const item of this.items(true)) item.disabled = item.dataset.change === now;
    const { style } = this.menu;
    this.menu.hidden = false;
    const [at, size] = [opener.getBoundingClientRect(), this.menu.getBoundingClientRect()];
    this.at = at;
    style.left = `${Math.max(4, at.right - size.width)}px`;
    style.top = `${Math.max(4, at.bottom + size.height > window.innerHeight ? at.top - size.height : at.bottom)}px`;
    this.items()[0].focus({ preventScroll: true });
  }

  /** Whether the button is elsewhere than when the menu was opened beside it. */
  hasMoved() {
    if (this.menu.hidden) return false;
    const { left, top } = this.opener.getBoundingClientRect();
    return !this.opener.isConnected || left !== this.at.left || top !== this.at.top;
  }

  close() {
    this.menu.hidden = true;
  }

  items(all = false) {
    return [...this.menu.querySelectorAll('[data-change]')].filter((item) => all || !item.disabled);
  }

  moved(event) {
    const items = this.items();
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      items.at(to % items.length).focus();
    } else if (event.key === 'Escape' || event.key === 'Tab') {
      event.preventDefault();
      this.back();
    }
  }

  /** Back to where somebody was. The row may have other nodes by now, or none. */
  back() {
    this.kind = null;
    this.close();
    if (this.opener?.isConnected) this.opener.focus({ preventScroll: true });
  }

  name() {
    return `${this.target.pool} / ${this.target.entry}`;
  }

  /** The rows that change together. */
  concerned() {
    return this.rows().filter((row) => row.pool === this.target.pool && row.entry === this.target.entry);
  }

  ask(kind) {
    if (kind === undefined) return;
    this.close();
    this.kind = kind;
    const rows = this.concerned();
    if (rows.length === 0) return this.back();
    this.say(this.error, '');
    this.confirm.disabled = false;
    put(this.title, `${CHANGES[kind].act} ${this.name()}?`);
    put(this.confirm, `${CHANGES[kind].act} ${this.target.entry}`);
    this.field.hidden = this.weight.disabled = kind !== 'weight';
    this.weight.value = rows[0].weight;
    this.update();
    this.dialog.showModal();
    if (kind === 'weight') this.weight.select();
  }

  /** The numbers of the question are new. */
  update() {
    if (this.kind === null) return;
    const rows = this.concerned();
    if (rows.length === 0) return;
    const { pool, entry } = this.target;
    const together = rows.length > 1 || rows[0].name !== entry ? [`All ${plural(rows.length, 'address', 'addresses')} of ${entry} change together.`] : [];
    put(this.text, [CHANGES[this.kind].does(entry, rows), stay(rows), ...together].join(' '));
    const takes = (row) => row.pool === pool && row.entry !== entry && row.up && !row.state && row.weight > 0;
    const last = (this.kind === 'drain' || this.kind === 'maintenance') && !this.rows().some(takes);
    this.say(this.warning, last ? `No other backend of pool ${pool} takes connections: new clients of the pool will be rejected.` : '');
  }

  /** Somebody has confirmed. */
  async make() {
    const { kind, target } = this;
    if (kind === null || this.confirm.disabled) return;
    const name = this.name();
    const path = `/api/pools/${encodeURIComponent(target.pool)}/backends/${encodeURIComponent(target.entry)}`;
    this.confirm.disabled = true;
    this.say(this.error, '');
    const isAsked = () => this.kind === kind && this.target === target;
    try {
      const { changes, warnings } = await this.send(path, CHANGES[kind].body(Number(this.weight.value)));
      const told = [changes.length > 0 ? changes.join('; ') : `${name}: nothing changes`, ...warnings.map((warning) => `warning: ${warning}`)];
      this.tell(told.join('; '), false);
      if (isAsked()) this.dialog.close();
    } catch (error) {
      if (isAsked()) this.say(this.error, error.message);
      else this.tell(`${name}: ${error.message}`, true);
    }
    if (isAsked()) this.confirm.disabled = false;
  }

  /** The outcome, which stays until the next one. */
  tell(text, bad) {
    this.outcome.classList.toggle('bad', bad);
    this.say(this.outcome, `${clock(Date.now() / 1000)} ${text}`);
  }

  say(node, text) {
    node.hidden = text === '';
    put(node, text);
  }
}
