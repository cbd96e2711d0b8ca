// Lines over time: uPlot, and a legend that is also what a screen reader reads.

import { clock, make, put } from './text.js';

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const dark = matchMedia('(prefers-color-scheme: dark)');
const drawn = new Set();

/** A colour of the style sheet. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const isDark = () => dark.matches;
export const isCalm = () => calm.matches;

/** Calls it when the colours of the page change. */
export function onColours(redraw) {
  dark.addEventListener('change', redraw);
}

/** Calls it with the width of a node, now and when it changes. */
export function onWidth(node, resize) {
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0) requestAnimationFrame(() => resize(width));
  }).observe(node);
}

export const HEIGHT = 190;
export const GUTTER = 58;
/** Between two labels of time: seconds. */
export const MINUTES = [60, 120, 300, 600];

/** The head of a chart: its title, and each line's name with its number. */
export class Legend {
  constructor(figure, title, entries) {
    this.time = make('span', { class: 'at' });
    this.values = entries.map(({ label, colour: name, dash }) => {
      const value = make('dd', {}, '–');
      const swatch = make('i', { class: dash ? 'swatch dashed' : 'swatch', 'aria-hidden': 'true' });
      if (name) swatch.style.setProperty('--line', `var(--${name})`);
      return { value, node: make('div', {}, make('dt', {}, ...(name ? [swatch] : []), label), value) };
    });
    const numbers = make('dl', { class: 'legend' }, ...this.values.map(({ node }) => node));
    figure.append(make('figcaption', {}, make('h3', {}, title, ' ', this.time), numbers));
  }

  show(texts, time = '') {
    put(this.time, time);
    this.values.forEach(({ value }, place) => put(value, texts[place]));
  }
}

/**
 * Lines over time. `lines` have a label, a colour's name, perhaps a dash and a fill; `text` writes a value down. With
 * `log`, the scale is logarithmic.
 */
export class Lines {
  constructor(figure, { title, lines, text, log = false, least = 1 }) {
    this.text = text;
    this.legend = new Legend(figure, title, lines);
    this.data = [[], ...lines.map(() => [])];
    this.range = [0, 1];
    const stage = make('div', { class: 'plot', 'aria-hidden': 'true' });
    figure.append(stage);
    const axis = {
      stroke: () => colour('muted'),
      grid: { stroke: () => colour('grid'), width: 1 },
      ticks: { show: false },
      font: '11px system-ui, sans-serif',
    };
    this.plot = new uPlot(
      {
        width: 300,
        height: HEIGHT,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: 'time' }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
        scales: {
          x: { time: true, range: () => this.range },
          y: log ? { distr: 3, range: (_, low, high) => decades(low, high) } : { range: (_, __, high) => [0, Math.max(high * 1.1, least)] },
        },
        axes: [
          { ...axis, size: 26, space: 56, incrs: MINUTES, values: (_, splits) => splits.map((at) => clock(at, false)) },
          {
            ...axis,
            size: GUTTER,
            space: 32,
            values: (_, splits) => splits.map(text),
            ...(log ? { splits: (_, __, low, high) => powers(low, high), filter: (_, splits) => splits } : {}),
          },
        ],
        series: [
          {},
          ...lines.map(({ colour: name, dash, fill, width = 1.5 }) => ({
            stroke: () => colour(name),
            width,
            dash,
            fill: fill ? () => colour(fill) : undefined,
            points: { show: false },
            // A short silence is no gap, a long one is.
            gaps: (plot, _, __, ___, gaps) =>
              gaps.filter(([from, to]) => ((to - from) / plot.bbox.width) * (this.range[1] - this.range[0]) > 10),
          })),
        ],
        hooks: { setCursor: [() => this.tell()] },
      },
      this.data,
      stage,
    );
    onWidth(stage, (width) => this.plot.setSize({ width, height: HEIGHT }));
    drawn.add(this);
  }

  /** Shows these values, the first of which are the times. */
  show(data, range) {
    this.data = data;
    this.range = range;
    if (!document.hidden) this.plot.setData(data);
    this.tell();
  }

  /** The numbers under the cursor, or the last ones. */
  tell() {
    const [times, ...lines] = this.data;
    const under = this.plot?.cursor.idx;
    const place = under ?? times.length - 1;
    const value = (line) => (line[place] === undefined || line[place] === null ? '–' : this.text(line[place]));
    this.legend.show(lines.map(value), under === null || under === undefined ? '' : clock(times[place]));
  }
}

/** The powers of ten between two of them. */
export function powers(low, high) {
  const [from, to] = [low, high].map((value) => Math.round(Math.log10(value)));
  return Array.from({ length: to - from + 1 }, (_, place) => 10 ** (from + place));
}

/** Whole decades around both, at least two. */
export function decades(low, high) {
  let from = 10 ** Math.floor(Math.log10(Math.max(low || 1, 1)));
  let to = 10 ** Math.ceil(Math.log10(Math.max(high || 1, 1)));
  while (to / from < 100) {
    if (from > 1 && to / (low || 1) > (high || 1) / from) from /= 10;
    else to *= 10;
  }
  return [from, to];
}

onColours(() => drawn.forEach((chart) => chart.plot.redraw()));
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) drawn.forEach((chart) => chart.plot.setData(chart.data));
});
