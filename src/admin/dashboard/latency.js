// One stage of one listener, pool or backend: a heat map, and percentiles, second by second.

import { GUTTER, HEIGHT, MINUTES, Legend, Lines, colour, decades, isDark, onColours, onWidth, powers } from './charts.js';
import { clock, count, make, micros, put } from './text.js';

const MEANS = {
  queue: 'Queue: the wait for a backend, from when the client’s pool is known.',
  connect: 'Connect: from the start of the connect that succeeded to its success.',
  tls_handshake: 'TLS handshake: the client’s at a listener, tidegate’s own at a backend.',
  first_byte: 'First byte: from the client’s first byte handed on to the backend’s first byte.',
  turnaround: 'Turnaround: from the last byte handed to the backend to the first that comes back, each time the direction turns.',
  session: 'Session: the whole connection, from accept to end.',
  http_first_byte: 'HTTP first byte: from the end of a request’s head to its response’s first byte.',
  http_response: 'HTTP response: from the end of a request’s head to its response’s end.',
  query_first_byte: 'Query first byte: from the end of a query to its answer’s first message.',
  query: 'Query: from its end to its answer’s end.',
};

/** Seconds that are kept. */
const KEPT = 900;
/** Rows of the heat map in a decade. */
const FINE = 16;
const PLOT_BOTTOM = 26;
const PLOT_TOP = 8;

const LIGHT = ['#e3eef5', '#a8cfe3', '#57a0c9', '#1f6aa5', '#0b3a6f', '#06204a'];
const DARK = ['#16303f', '#1d5570', '#2c7f96', '#5fb09f', '#b9d488', '#fdf2a5'];

const row = (value) => Math.floor(Math.log10(Math.max(value, 1)) * FINE + 1e-9);

/** The colours of a heat map, 256 of them. */
function ramp(stops) {
  const parts = stops.map((hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, place) => {
    const at = (place / 255) * (parts.length - 1);
    const low = Math.min(Math.floor(at), parts.length - 2);
    return parts[low].map((from, part) => Math.round(from + (parts[low + 1][part] - from) * (at - low)));
  });
}

export class Latency {
  constructor({ of, stage, hint, heat, percentiles, ask }) {
    Object.assign(this, { of, stage, hint, ask });
    this.span = 300;
    this.known = '';
    this.forget();
    this.heat = new Heat(heat);
    this.lines = new Lines(percentiles, {
      title: 'Percentiles',
      log: true,
      text: micros,
      lines: [
        { label: 'p50', colour: 'p50', width: 2 },
        { label: 'p90', colour: 'p90' },
        { label: 'p99', colour: 'p99' },
        { label: 'p99.9', colour: 'p999', dash: [6, 3] },
        { label: 'max', colour: 'max', dash: [2, 3] },
      ],
    });
    of.addEventListener('change', () => this.restart());
    stage.addEventListener('change', () => this.restart());
  }

  forget() {
    this.seconds = new Map();
    this.after = 0;
    this.question = {};
  }

  restart() {
    this.forget();
    put(this.hint, MEANS[this.stage.value] ?? '');
    this.update();
  }

  /** What there is to look at; what is looked at stays the same by its name. */
  names(names) {
    const listeners = names.listeners.map(({ id, name }) => ({ name, value: `listener=${id}` }));
    const pools = names.pools.map((pool) => ({
      label: `Pool ${pool.name}`,
      entries: [
        { value: `pool=${pool.id}`, shown: `${pool.name}, all backends` },
        ...pool.backends.map(([id, name]) => ({ value: `backend=${id}`, shown: `${pool.name} / ${name}` })),
      ],
    }));
    const was = this.of.selectedOptions[0]?.textContent;
    const groups = [{ label: 'Listeners', entries: listeners }, ...pools].map(({ label, entries }) =>
      make('optgroup', { label }, ...entries.map(({ name, value, shown }) => make('option', { value }, shown ?? name))),
    );
    this.of.replaceChildren(...groups);
    const same = [...this.of.options].find((option) => option.textContent === was);
    if (same) same.selected = true;
    if (this.stage.options.length === 0) {
      this.stage.append(...names.stages.map((name) => make('option', { value: name }, name.replaceAll('_', ' '))));
      this.stage.value = 'turnaround';
    }
    this.restart();
  }

  /** Shows this backend. */
  look(id) {
    this.of.value = `backend=${id}`;
    this.restart();
  }

  /** Takes the seconds that are new. */
  async update() {
    if (!this.of.value) return;
    const question = this.question;
    if (question.asked) return;
    question.asked = true;
    try {
      const answer = await this.ask(`/series?${this.of.value}&stage=${this.stage.value}&after=${this.after}`);
      // Something else is looked at by now.
      if (question !== this.question) return;
      this.take(answer);
    } catch {
      // The stream says that tidegate does not answer.
    } finally {
      question.asked = false;
    }
  }

  take({ time, second, seconds }) {
    this.after = second;
    this.offset = Math.floor(time) - second;
    for (const one of seconds) {
      const bins = new Map();
      for (const [lowest, , more] of one.ranges) bins.set(row(lowest), (bins.get(row(lowest)) ?? 0) + more);
      this.seconds.set(one.second, { ...one, ranges: null, bins });
    }
    for (const old of this.seconds.keys()) if (old <= second - KEPT) this.seconds.delete(old);
    this.show();
  }

  show() {
    if (this.offset === undefined) return;
    const first = this.after - this.span + 1;
    const range = [first + this.offset, this.after + this.offset];
    const columns = Array.from({ length: this.span }, (_, place) => this.seconds.get(first + place));
    const line = (name) => columns.map((column) => column?.[name] ?? null);
    const times = columns.map((_, place) => first + place + this.offset);
    this.lines.show([times, line('p50'), line('p90'), line('p99'), line('p99.9'), line('max')], range);
    this.heat.show(columns, range);
  }
}

/** Time to the right, latency up, and how often as colour; both latency and colour logarithmic. */
class Heat {
  constructor(figure) {
    this.legend = new Legend(figure, 'Heat map', [{ label: 'last second' }, { label: 'median' }, { label: 'slowest' }]);
    this.canvas = make('canvas', { role: 'img', 'aria-label': 'Heat map of latency over time; its numbers are above.' });
    this.image = document.createElement('canvas');
    const plot = make('div', { class: 'plot' }, this.canvas);
    this.scale = make('p', { class: 'scale', 'aria-hidden': 'true' }, make('span', {}, 'rare'), make('i'), make('span', {}, 'frequent'));
    figure.append(plot, this.scale);
    this.columns = [];
    this.range = [0, 1];
    this.width = 300;
    onWidth(plot, (width) => {
      this.width = width;
      this.draw();
    });
    onColours(() => this.draw());
    this.canvas.addEventListener('pointermove', (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener('pointerleave', () => this.point(null));
    document.addEventListener('visibilitychange', () => this.draw());
  }

  show(columns, range) {
    this.columns = columns;
    this.range = range;
    this.draw();
    this.tell();
  }

  draw() {
    if (document.hidden) return;
    const { canvas, width, columns } = this;
    const ratio = devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(HEIGHT * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) {
      [canvas.width, canvas.height] = size;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${HEIGHT}px`;
    }
    const [low, high] = this.bounds();
    const [bottom, top] = [row(low), row(high)];
    const rows = top - bottom;
    const most = columns.reduce((most, column) => Math.max(most, ...(column?.bins.values() ?? [])), 1);
    const colours = ramp(isDark() ? DARK : LIGHT);
    const image = new ImageData(Math.max(columns.length, 1), rows);
    columns.forEach((column, x) => {
      column?.bins.forEach((times, at) => {
        const y = rows - 1 - Math.min(Math.max(at - bottom, 0), rows - 1);
        const [r, g, b] = colours[Math.round((255 * Math.log1p(times)) / Math.log1p(most))];
        image.data.set([r, g, b, 255], 4 * (y * image.width + x));
      });
    });
    [this.image.width, this.image.height] = [image.width, image.height];
    this.image.getContext('2d').putImageData(image, 0, 0);

    const paper = canvas.getContext('2d');
    paper.setTransform(ratio, 0, 0, ratio, 0, 0);
    paper.clearRect(0, 0, width, HEIGHT);
    const plot = this.plot();
    this.axes(paper, plot, low, high);
    paper.imageSmoothingEnabled = false;
    paper.drawImage(this.image, plot.x, plot.y, plot.width, plot.height);
  }

  plot() {
    return { x: GUTTER, y: PLOT_TOP, width: this.width - GUTTER - 8, height: HEIGHT - PLOT_TOP - PLOT_BOTTOM };
  }

  bounds() {
    let [low, high] = [Infinity, 1];
    for (const column of this.columns) {
      if (!column) continue;
      for (const at of column.bins.keys()) low = Math.min(low, 10 ** (at / FINE));
      high = Math.max(high, column.max);
    }
    return decades(low === Infinity ? 100 : low, low === Infinity ? 10_000 : high);
  }

  axes(paper, plot, low, high) {
    paper.font = '11px system-ui, sans-serif';
    paper.fillStyle = colour('muted');
    paper.strokeStyle = colour('grid');
    paper.lineWidth = 1;
    paper.textAlign = 'right';
    paper.textBaseline = 'middle';
    paper.beginPath();
    for (const at of powers(low, high)) {
      const y = Math.round(plot.y + plot.height * (1 - Math.log(at / low) / Math.log(high / low))) + 0.5;
      paper.moveTo(plot.x, y);
      paper.lineTo(plot.x + plot.width, y);
      paper.fillText(micros(at), plot.x - 8, y);
    }
    paper.stroke();
    paper.textAlign = 'center';
    const [from, to] = this.range;
    const step = MINUTES.find((step) => (plot.width * step) / (to - from) > 56) ?? 900;
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      const x = plot.x + (plot.width * (at - from)) / (to - from);
      if (x > plot.x + 14 && x < plot.x + plot.width - 14) paper.fillText(clock(at, false), x, HEIGHT - 11);
    }
  }

  /** What is at this place; the last second without one. */
  point(x, y) {
    const plot = this.plot();
    this.under = null;
    if (x !== null && x >= plot.x && x < plot.x + plot.width && y >= plot.y && y < plot.y + plot.height) {
      const [low, high] = this.bounds();
      const at = row(low) + Math.floor(((plot.y + plot.height - y) / plot.height) * (row(high) - row(low)));
      this.under = { column: Math.floor(((x - plot.x) / plot.width) * this.columns.length), at };
    }
    this.tell();
  }

  tell() {
    const place = this.under?.column ?? this.columns.length - 1;
    const column = this.columns[place];
    let first = column ? count(column.count) : '0';
    if (this.under) {
      const between = [this.under.at, this.under.at + 1].map((at) => micros(10 ** (at / FINE)));
      first = `${count(column?.bins.get(this.under.at) ?? 0)} of ${first}, ${between[0]} to ${between[1]}`;
    }
    this.legend.show(
      [first, micros(column?.p50), micros(column?.max)],
      this.under ? clock(this.range[0] + place) : '',
    );
  }
}
