// Who is connected: a list that is asked for while it is open, and at no other time.

import { Table } from './table.js';
import { bytes, make, plural, put, span } from './text.js';

/** Between an answer and the next question (milliseconds). */
const PAUSE = 3000;
/** How long typing has to rest (milliseconds). */
const TYPED = 250;
/** Rows that are shown, the oldest. */
const ROWS = 200;

/** A duration, to the second while it is short. */
const age = (seconds) => (seconds < 60 ? `${Math.floor(seconds)} s` : span(seconds));

const columns = [
  { title: 'Client', heads: true, text: (row) => row.client },
  { title: 'Listener', css: 'roomy', text: (row) => row.listener },
  { title: 'Pool', css: 'roomy', text: (row) => row.pool ?? '–' },
  { title: 'Backend', text: (row) => row.backend ?? '–' },
  { title: 'Open for', css: 'number', text: (row) => age(row.age_s) },
  { title: 'Idle for', css: 'number', text: (row) => age(row.idle_s) },
  { title: 'In', css: 'number wide', text: (row) => bytes(row.bytes_in) },
  { title: 'Out', css: 'number wide', text: (row) => bytes(row.bytes_out) },
  { title: 'Server name', css: 'wide', text: (row) => row.sni ?? '–' },
  { title: 'User', css: 'wide', text: (row) => [row.user, row.database].filter(Boolean).join(' / ') || '–' },
  { title: 'Id', css: 'wide path', text: (row) => row.id },
  { title: 'Process', css: 'number wide', text: (row) => String(row.pid) },
];

export class Connections {
  /** `details` is open while the list is wanted; `filters` are fields whose names are those of a query; `ask` gets a path. */
  constructor({ details, table, filters, pools, again, shows, error, ask }) {
    Object.assign(this, { details, filters, pools, shows, error, ask });
    this.table = new Table(table, columns);
    this.timer = null;
    // Of the last question: answers to earlier ones come too late.
    this.asked = 0;
    details.addEventListener('toggle', () => this.look());
    document.addEventListener('visibilitychange', () => this.look());
    again.addEventListener('click', () => this.look());
    for (const field of filters) field.addEventListener('input', () => this.look(TYPED));
  }

  /** The pools that there are, to choose from. */
  names(pools) {
    const chosen = this.pools.value;
    const all = make('option', { value: '' }, 'all');
    const options = pools.map(({ name }) => make('option', { value: name }, name));
    this.pools.replaceChildren(all, ...options);
    this.pools.value = pools.some(({ name }) => name === chosen) ? chosen : '';
    if (this.pools.value !== chosen) this.look();
  }

  /** Asks after a delay in milliseconds, and then periodically while the list is open. */
  look(wait = 0) {
    clearTimeout(this.timer);
    this.asked += 1;
    if (this.details.open && !document.hidden) this.timer = setTimeout(() => this.refresh(), wait);
  }

  async refresh() {
    const number = this.asked;
    const query = new URLSearchParams({ limit: String(ROWS) });
    for (const { name, value } of this.filters) {
      if (value.trim() !== '') query.set(name, value.trim());
    }
    let answer = null;
    let reason = null;
    try {
      answer = await this.ask(`/api/connections?${query}`);
    } catch (error) {
      reason = error.reason ?? 'no answer from tidegate';
    }
    if (number !== this.asked) return;
    this.error.hidden = reason === null;
    put(this.error, reason ?? '');
    if (answer !== null) this.show(answer);
    this.look(PAUSE);
  }

  show({ connections, matched, more, unreached = [] }) {
    this.table.show(connections.map((row) => ({ ...row, key: row.id })));
    const all = plural(matched, 'connection', 'connections');
    const shown = more ? `the oldest ${connections.length} of ${all}` : all;
    const missing = unreached.map((it) => `; ${plural(it.connections, 'connection', 'connections')} of process ${it.pid} not listed`);
    put(this.shows, shown + missing.join(''));
  }
}
