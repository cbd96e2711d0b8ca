// The page: takes the events of tidegate's stats port, and shows them.

import { Changes } from './changes.js';
import { Lines, isCalm } from './charts.js';
import { Connections } from './connections.js';
import { Latency } from './latency.js';
import { Backends, Table, sign } from './table.js';
import { $, arrange, bytes, clock, count, day, make, mark, micros, moment, plural, put, rate, share, span } from './text.js';

/** Seconds that are kept. */
const KEPT = 900;
/** An answer that stops for so long is none (milliseconds). */
const SILENCE = 6000;
/** Between two attempts (milliseconds). */
const PAUSE = 1000;
/** Days before its end from which a certificate is shown as ending soon. */
const SOON = 14;

// ---- What is known.

let names = null;
let columns = null;
let before = null;
let known = null;
const history = { time: [], open: [], fresh: [], rejected: [], failed: [], in: [], out: [] };
const listeners = [];
const pools = [];
const backends = [];

// ---- What shows it.

const figures = {
  open: new Lines($('chart-open'), {
    title: 'Connections',
    text: count,
    least: 5,
    lines: [{ label: 'open', colour: 'line-1', fill: 'fill-1' }],
  }),
  rate: new Lines($('chart-rate'), {
    title: 'Connections a second',
    text: rate,
    least: 5,
    lines: [
      { label: 'new', colour: 'line-1' },
      { label: 'rejected', colour: 'line-2', dash: [6, 3] },
      { label: 'failed', colour: 'line-3', dash: [2, 3] },
    ],
  }),
  bytes: new Lines($('chart-bytes'), {
    title: 'Bytes a second',
    text: bytes,
    least: 1000,
    lines: [
      { label: 'to backends', colour: 'line-1' },
      { label: 'to clients', colour: 'line-4', dash: [6, 3] },
    ],
  }),
};

const latency = new Latency({
  of: $('latency-of'),
  stage: $('latency-stage'),
  hint: $('stage-hint'),
  heat: $('chart-heat'),
  percentiles: $('chart-percentiles'),
  ask: async (path) => (await get(path)).json(),
});

const connections = new Connections({
  details: $('connections'),
  table: $('connections-table'),
  filters: [$('connections-pool'), $('connections-backend'), $('connections-client')],
  pools: $('connections-pool'),
  again: $('connections-again'),
  shows: $('connections-count'),
  error: $('connections-error'),
  ask: async (path) => (await get(path)).json(),
});

const changes = new Changes({
  menu: $('change-menu'),
  menuTitle: $('change-menu-title'),
  dialog: $('change'),
  form: $('change-form'),
  title: $('change-title'),
  text: $('change-text'),
  warning: $('change-warning'),
  field: $('change-weight-field'),
  weight: $('change-weight'),
  error: $('change-error'),
  cancel: $('change-cancel'),
  confirm: $('change-confirm'),
  outcome: $('change-outcome'),
  rows: () => backends,
  send: patch,
});

const stage = () => $('table-stage').value;
const percentile = (row, which) => row[`${stage()}_${which}`] ?? null;

/** Requests of HTTP or queries, where they were seen: a second, and below all of them, and how many got a 5xx or an error. */
const http = {
  title: 'Requests/s',
  css: 'number wide http',
  largest: true,
  value: (row) => (row.requests === null ? null : row.requests_rate),
  fill: httpRequests,
};

const listenerTable = new Table($('listeners'), [
  { title: 'Listener', heads: true, text: (row) => (row.state === 'ready' ? row.name : `${row.name} (${row.state})`) },
  { title: 'Address', css: 'roomy', text: (row) => row.addresses.join(', ') },
  { title: 'To', css: 'roomy', text: (row) => row.pools.join(', ') },
  { title: 'TLS', css: 'wide', text: (row) => (row.tls ? 'ends here' : '–') },
  { title: 'Open', css: 'number', text: (row) => (row.max_connections ? `${count(row.open)} of ${count(row.max_connections)}` : count(row.open)) },
  { title: 'New/s', css: 'number', text: (row) => rate(row.accepted_rate) },
  { title: 'Rejected', css: 'number', text: (row) => count(row.rejected) },
  { title: 'In/s', css: 'number wide', text: (row) => bytes(row.bytes_in_rate) },
  { title: 'Out/s', css: 'number wide', text: (row) => bytes(row.bytes_out_rate) },
  http,
  { title: 'p50', css: 'number wide', text: (row) => micros(percentile(row, 'p50')) },
  { title: 'p99', css: 'number', text: (row) => micros(percentile(row, 'p99')) },
]);

const poolTable = new Table($('pools'), [
  { title: 'Pool', heads: true, fill: poolName },
  { title: 'State', fill: poolState },
  { title: 'Balance', css: 'wide', text: (row) => row.balance.replaceAll('_', ' ') },
  { title: 'Checks', css: 'wide', text: (row) => row.health ?? 'none' },
  { title: 'Open', css: 'number', text: (row) => count(row.open) },
  { title: 'New/s', css: 'number', text: (row) => rate(row.connections_rate) },
  { title: 'Rejected', css: 'number', text: (row) => count(row.rejected) },
  { title: 'Retries', css: 'number wide', text: (row) => count(row.retries) },
  { title: 'p50', css: 'number wide', text: (row) => micros(percentile(row, 'p50')) },
  { title: 'p99', css: 'number', text: (row) => micros(percentile(row, 'p99')) },
]);

const backendTable = new Backends({
  table: $('backends-table'),
  scroll: $('backends-scroll'),
  search: $('search'),
  filter: $('filter'),
  shows: $('count'),
  status,
  change: (row, button) => changes.open(row, button),
  look: (row) => {
    latency.look(row.id);
    $('latency').scrollIntoView({ behavior: isCalm() ? 'auto' : 'smooth' });
  },
  columns: [
    { title: 'State', css: 'state', value: (row) => rank(row), fill: (node, row) => sign(node, ...backendState(row)) },
    { title: 'Backend', css: 'name', heads: true, value: (row) => row.name, fill: backendName },
    { title: 'Pool', css: 'wide pool', value: (row) => row.pool, text: (row) => row.pool },
    { title: 'Open', css: 'number', largest: true, value: (row) => row.open, text: (row) => count(row.open) },
    { title: 'New/s', css: 'number roomy', largest: true, value: (row) => row.connections_rate, text: (row) => rate(row.connections_rate) },
    { title: 'Failed', css: 'number wide', largest: true, value: (row) => row.connect_failures + row.failures, text: (row) => count(row.connect_failures + row.failures) },
    { title: 'In/s', css: 'number wide', largest: true, value: (row) => row.bytes_in_rate, text: (row) => bytes(row.bytes_in_rate) },
    { title: 'Out/s', css: 'number wide', largest: true, value: (row) => row.bytes_out_rate, text: (row) => bytes(row.bytes_out_rate) },
    http,
    { title: 'p50', css: 'number wide', largest: true, value: (row) => percentile(row, 'p50'), text: (row) => micros(percentile(row, 'p50')) },
    { title: 'p99', css: 'number', largest: true, value: (row) => percentile(row, 'p99'), text: (row) => micros(percentile(row, 'p99')) },
    { title: 'For', css: 'number wide', value: (row) => row.since && -row.since, text: (row) => (row.since ? span(before.time - row.since) : '–') },
    { title: 'Change', css: 'act', fill: (node, row) => changes.button(node, row) },
  ],
});

const certificateTable = new Table($('certificates'), [
  { title: 'Ends', fill: (node, row) => sign(node, ...ending(row)) },
  { title: 'Names', heads: true, text: (row) => row.names.join(', ') || 'none' },
  { title: 'Of', css: 'roomy', text: (row) => row.owner },
  { title: 'Key', css: 'wide', text: (row) => row.kind },
  { title: 'File', css: 'wide path', text: (row) => row.path },
]);

const transitionNodes = new Map();
const rejectionNodes = new Map();

/** Whether it takes connections, and whether a health check or an administrator says so. */
function status(row) {
  if (row.state) return row.state;
  if (!row.up) return 'down';
  return row.checked ? 'up' : 'unchecked';
}

function rank(row) {
  if (row.state) return 1;
  if (!row.up) return 0;
  if (row.weight === 0) return 2;
  return row.backup ? 4 : 3;
}

function backendState(row) {
  if (row.state) return [row.state, row.state];
  if (!row.up) return ['down', 'down'];
  if (row.weight === 0) return ['idle', 'weight 0'];
  if (!row.checked) return ['unchecked', 'unchecked'];
  return row.backup ? ['backup', 'backup'] : ['up', 'up'];
}

function backendName(node, row) {
  if (node.firstChild === null) node.append(make('button', { type: 'button', class: 'link' }), make('small'));
  put(node.firstChild, row.name);
  const notes = [];
  if (row.database) notes.push(row.database);
  if (row.forced) notes.push(`forced ${row.forced}`);
  if (row.up) notes.push(row.backup && (row.state || !row.checked) ? 'backup' : '');
  else if (!row.reason?.startsWith('forced')) notes.push(row.reason ?? 'down');
  put(node.lastChild, [...notes, row.address].filter(Boolean).join(' · '));
  mark(node.lastChild, 'title', node.lastChild.textContent);
}

function httpRequests(node, row) {
  if (node.firstChild === null) node.append(make('span'), make('small'));
  const { requests, server_errors, queries } = row;
  put(node.firstChild, requests === null ? '–' : rate(row.requests_rate));
  put(node.lastChild, requests === null ? '' : `${count(requests)}, ${share(server_errors, requests)} ${queries === null ? '5xx' : 'errors'}`);
}

function poolName(node, row) {
  if (node.firstChild === null) {
    const button = make('button', { type: 'button', class: 'link' });
    button.addEventListener('click', () => {
      $('search').value = button.textContent;
      backendTable.order();
      $('backends').scrollIntoView({ behavior: isCalm() ? 'auto' : 'smooth' });
    });
    node.append(button, make('small'));
  }
  put(node.firstChild, row.name);
  const notes = [];
  if (row.waiting > 0) notes.push(`${count(row.waiting)} wait`);
  if (row.fails_open === 1) notes.push('fail open: too few backends are up');
  if (row.primary_conflict === 1) notes.push('more than one primary');
  put(node.lastChild, notes.join(' · '));
}

function poolState(node, row) {
  const well = row.health === null ? 'unchecked' : 'up';
  const state = row.up === row.size ? well : row.usable ? 'part' : 'down';
  sign(node, state, `${count(row.up)} of ${count(row.size)} ${well}`);
}

/** When a certificate ends: days when that is near. */
function ending(row) {
  const left = (row.not_after - Date.now() / 1000) / 86_400;
  if (left < 0) return ['down', `expired ${day(row.not_after)}`];
  const text = left > 1000 ? day(row.not_after) : `${day(row.not_after)}, in ${plural(Math.floor(left), 'day', 'days')}`;
  return [left < SOON ? 'part' : 'up', text];
}

// ---- What comes.

function onNames(value) {
  if (names !== null && names.started !== value.started) {
    // Another process: its numbers begin anew.
    Object.values(history).forEach((list) => list.splice(0));
    known = null;
    latency.forget();
  }
  names = value;
  columns = value.columns;
  before = null;
  put($('version'), value.version);
  put($('build'), `tidegate ${value.version}, ${value.commit}.`);
  const replace = (list, rows) => list.splice(0, list.length, ...rows);
  replace(listeners, value.listeners.map((listener) => ({ ...listener, key: listener.name })));
  replace(pools, value.pools.map((pool) => ({ ...pool, key: pool.name, size: pool.backends.length })));
  let place = 0;
  const rows = value.pools.flatMap((pool) =>
    pool.backends.map(([id, name, address, weight, backup, entry]) => ({
      key: JSON.stringify([pool.name, name]),
      words: `${name} ${pool.name} ${address}`.toLowerCase(),
      pool: pool.name,
      place: place++,
      id,
      name,
      // What is changed: all addresses of a host name are one.
      entry: entry ?? name,
      address,
      weight,
      backup,
      checked: pool.health !== null,
    })),
  );
  replace(backends, rows);
  latency.names(value);
  connections.names(value.pools);
}

/** Puts numbers into their rows by the names of the columns, and how fast they rise. */
function take(rows, heads, values, last, passed) {
  values.forEach((numbers, place) => {
    const row = rows[place];
    const old = last?.[place];
    heads.forEach((head, at) => {
      row[head] = numbers[at];
      row[`${head}_rate`] = old && passed > 0 ? Math.max(0, numbers[at] - old[at]) / passed : 0;
    });
  });
}

const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);

function onView(view) {
  if (names === null) return;
  const started = performance.now();
  const passed = before === null ? 0 : view.time - before.time;
  take(listeners, columns.listener, view.listeners, before?.listeners, passed);
  take(pools, columns.pool, view.pools, before?.pools, passed);
  take(backends, columns.backend, view.backends, before?.backends, passed);
  backends.forEach((row) => {
    row.up = row.up === 1;
    row.reason = view.reasons[row.place];
    row.database = view.databases[row.place];
    row.state = view.states[row.place];
    row.forced = view.forced[row.place];
  });
  let place = 0;
  for (const pool of pools) {
    const own = backends.slice(place, (place += pool.size));
    pool.open = sum(own, 'open');
    pool.connections_rate = sum(own, 'connections_rate');
  }
  const cpu = before === null || passed <= 0 ? null : (view.cpu_seconds - before.cpu_seconds) / passed;
  const first = before === null;
  before = view;

  header(view, cpu);
  if (passed > 0) {
    const now = {
      time: Math.round(view.time),
      open: view.open,
      fresh: sum(listeners, 'accepted_rate'),
      rejected: sum(listeners, 'rejected_rate'),
      failed: sum(backends, 'connect_failures_rate') + sum(backends, 'failures_rate'),
      in: sum(listeners, 'bytes_in_rate'),
      out: sum(listeners, 'bytes_out_rate'),
    };
    for (const [name, list] of Object.entries(history)) {
      list.push(now[name]);
      if (list.length > KEPT) list.shift();
    }
    lines();
  }
  document.body.toggleAttribute('data-http', listeners.some((row) => row.requests !== null));
  poolTable.show(pools);
  listenerTable.show(listeners);
  if (first) backendTable.replace(backends);
  else backendTable.update();
  changes.update();
  tellNews();
  latency.update();
  // For who wants to know what an update costs; nothing is kept of it.
  performance.measure('update', { start: started, detail: view.time });
  performance.clearMeasures('update');
}

function lines() {
  const { time, open, fresh, rejected, failed } = history;
  const last = time.at(-1) ?? 0;
  const range = [last - Number($('span').value) + 1, last];
  figures.open.show([time, open], range);
  figures.rate.show([time, fresh, rejected, failed], range);
  figures.bytes.show([time, history.in, history.out], range);
}

function header(view, cpu) {
  const [state, text] = view.draining ? ['draining', 'draining'] : view.ready ? ['ready', 'ready'] : ['bad', 'not ready'];
  mark($('status'), 'data-state', state);
  put($('status-text'), text);
  const having = (wanted) => backends.filter((row) => status(row) === wanted).length;
  const down = having('down');
  const others = [['unchecked', 'unchecked'], ['drain', 'drained'], ['maintenance', 'in maintenance']]
    .map(([state, word]) => [having(state), word])
    .filter(([number]) => number > 0);
  put($('fact-up'), `${count(having('up'))} of ${count(backends.length)}`);
  put($('fact-unchecked'), others.map(([number, word]) => `${count(number)} ${word}`).join(', '));
  put($('fact-uptime'), span(view.uptime));
  put($('fact-cpu'), cpu === null ? '–' : `${Math.round(cpu * 100)} %`);
  put($('fact-memory'), bytes(view.resident_bytes));
  const title = down > 0 ? `(${down} down) tidegate` : 'tidegate';
  if (document.title !== title) document.title = title;
}

function standing(row) {
  const words = { down: `down: ${row.reason ?? ''}`, drain: 'drained', maintenance: 'in maintenance', leaving: 'removed' };
  return words[status(row)] ?? status(row);
}

/** Says what went up or down, once, for who does not see it. */
function tellNews() {
  const now = new Map(backends.map((row) => [row.key, status(row)]));
  const changed = backends.filter((row) => known?.has(row.key) && known.get(row.key) !== status(row));
  known = now;
  if (changed.length === 0) return;
  const said = changed.slice(0, 3).map((row) => `${row.pool} / ${row.name} is ${standing(row)}`);
  if (changed.length > 3) said.push(`and ${changed.length - 3} more`);
  put($('news'), said.join(', '));
}

function onJournal({ not_ready, config, geoip, transitions, rejections, certificates, tls_files, logs }) {
  notice($('not-ready'), not_ready);
  notice($('config'), [config, geoip].filter((line) => line !== null));
  notice($('logs'), logs.map(logLine));
  list($('transitions'), transitionNodes, transitions, 'No backend went up or down yet.', ({ time, pool, backend, status, reason }) => {
    const state = make('span', { class: 'state' });
    sign(state, status, status);
    const what = make('span', {}, make('strong', {}, `${pool} / ${backend}`));
    if (reason) what.append(make('small', {}, reason));
    return [when(time), state, what];
  });
  list($('rejections'), rejectionNodes, rejections, 'No client was rejected yet.', ({ time, listener, client, reason, more }) => {
    const others = more > 0 ? ` (and ${plural(more, 'other', 'others')} before it)` : '';
    const what = make('span', {}, make('strong', {}, client), ` at ${listener}${others}`, make('small', {}, reason));
    return [when(time), what];
  });
  const rejected = tls_files.flatMap(({ owner, faults }) => faults.map((fault) => `${owner}: new files are rejected, the previous ones stay in service: ${fault}`));
  notice($('rejected-files'), rejected);
  $('certificates-section').hidden = certificates.length + rejected.length === 0;
  const seen = new Map();
  certificateTable.show(
    certificates.map((row) => {
      const same = `${row.owner} ${row.path}`;
      seen.set(same, (seen.get(same) ?? 0) + 1);
      return { ...row, kind: row.key, key: `${same} ${seen.get(same)}` };
    }),
  );
}

function logLine({ name, write_errors, error, failing_since }) {
  const lost = plural(write_errors, 'line', 'lines');
  return error === null
    ? `${name} log: ${lost} could not be written; it is written again`
    : `${name} log cannot be written since ${moment(failing_since)}: ${error} (${lost} lost)`;
}

function notice(node, lines) {
  node.hidden = lines.length === 0;
  node.replaceChildren(...lines.map((line) => make('li', {}, line)));
}

function when(time) {
  return make('time', { datetime: new Date(time * 1000).toISOString() }, moment(time));
}

function list(node, nodes, entries, none, inside) {
  const byKey = new Map(entries.map((entry) => [JSON.stringify(entry), entry]));
  if (byKey.size === 0) byKey.set('none', null);
  arrange(node, nodes, [...byKey.keys()], (key) => {
    const entry = byKey.get(key);
    return entry === null ? make('li', { class: 'none' }, none) : make('li', {}, ...inside(entry));
  });
}

// ---- The stream.

const handlers = { names: onNames, journal: onJournal, view: onView };
let token = sessionStorage.getItem('token');

const authorization = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** Asks for something, with the token if one was given. (EventSource could not send it.) */
async function get(path, signal) {
  const response = await fetch(path, { headers: authorization(), signal, cache: 'no-store' });
  if (response.status === 401) {
    await askForToken();
    return get(path, signal);
  }
  if (!response.ok) throw new Refused(path, response, await response.text());
  return response;
}

/** Changes something. What is refused rejects with the reason. */
async function patch(path, body) {
  const headers = { ...authorization(), 'Content-Type': 'application/json' };
  const options = { method: 'PATCH', headers, body: JSON.stringify(body), cache: 'no-store' };
  const response = await fetch(path, options).catch(() => {
    throw new Error('No answer from tidegate: look whether it was done.');
  });
  const text = await response.text();
  if (!response.ok) throw new Error(told(text) || `refused: ${response.status}`);
  return JSON.parse(text);
}

/** The sentence of an answer that is an error. */
function told(text) {
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim();
  }
}

/** An answer that says why it is none. */
class Refused extends Error {
  constructor(path, response, text) {
    super(`${path}: ${response.status}`);
    /** In a sentence: that tidegate has no room for this page, or what it does not understand. */
    this.reason = response.status === 503 ? text.trim() : response.status === 400 ? told(text) : null;
  }
}

/** Resolves when somebody has given a token. */
let asking = null;
function askForToken() {
  const form = $('token-form');
  asking ??= new Promise((resolve) => {
    say('lost', 'Waiting for the token');
    form.hidden = false;
    $('token').focus();
    form.addEventListener(
      'submit',
      (event) => {
        event.preventDefault();
        token = $('token').value.trim();
        sessionStorage.setItem('token', token);
        form.hidden = true;
        asking = null;
        resolve();
      },
      { once: true },
    );
  });
  return asking;
}

/** Reads events until the stream ends or falls silent. */
async function watch() {
  const end = new AbortController();
  const response = await get('/events', end.signal);
  changes.allowed = response.headers.get('Tidegate-Changes') === 'allowed';
  document.body.toggleAttribute('data-changes', changes.allowed);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const silence = setTimeout(() => end.abort(), SILENCE);
    const { value, done } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    text += value;
    const events = text.split('\n\n');
    text = events.pop();
    for (const event of events) {
      const [, kind, data] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? [];
      handlers[kind]?.(JSON.parse(data));
      say('live', 'Live');
    }
  }
}

function say(state, text) {
  mark(document.body, 'data-stream', state);
  put($('stream-text'), text);
}

async function run() {
  let since = '';
  for (;;) {
    let reason = null;
    try {
      await watch();
    } catch (error) {
      reason = error.reason ?? null;
      // A defect of this page should be seen; that tidegate does not answer is said below.
      const known = reason !== null || error.name === 'AbortError' || (error instanceof TypeError && /fetch|network/i.test(error.message));
      if (!known) console.error(error);
    }
    if (before !== null) since = ` since ${clock(before.time)}`;
    say('lost', reason ?? `No answer from tidegate${since}; trying again`);
    before = null;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

$('span').addEventListener('change', () => {
  latency.span = Number($('span').value);
  latency.show();
  lines();
});
$('table-stage').addEventListener('change', () => {
  poolTable.show(pools);
  listenerTable.show(listeners);
  backendTable.order();
});
$('search').addEventListener('keydown', (event) => {
  if (event.key === 'Escape') {
    $('search').value = '';
    backendTable.order();
  }
});

run();
