// Numbers as text, and text as nodes. Names come from a configuration: they are only ever set as text.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const number = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const trimmed = (text) => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);

function scaled(value, base, units) {
  let unit = 0;
  while (value >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return [trimmed(number(value)), units[unit]];
}

/** A count: 1,234 as it is, larger ones as 12.3 k. */
export function count(value) {
  if (value < 10_000) return whole.format(value);
  const [text, unit] = scaled(value, 1000, ['', 'k', 'M', 'G', 'T']);
  return `${text} ${unit}`;
}

/** How often a second. */
export function rate(value) {
  if (value === 0) return '0';
  return value < 9.95 ? trimmed(value.toFixed(1)) : count(Math.round(value));
}

/** A part of a whole. What is not nothing is never shown as 0 %. */
export function share(part, whole) {
  const percent = whole === 0 ? 0 : (100 * part) / whole;
  if (part > 0 && percent < 0.1) return '< 0.1 %';
  return `${trimmed(percent.toFixed(1))} %`;
}

export function bytes(value) {
  const [text, unit] = scaled(value, 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);
  return `${unit === 'B' ? Math.round(value) : text} ${unit}`;
}

/** A duration of so many microseconds. */
export function micros(value) {
  if (value === null || value === undefined) return '–';
  const [text, unit] = scaled(value, 1000, ['µs', 'ms', 's']);
  return `${text} ${unit}`;
}

/** A duration of so many seconds, coarse enough to change seldom. */
export function span(seconds) {
  if (seconds < 60) return '< 1 min';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const two = (value) => String(value).padStart(2, '0');

/** The time of day here, of seconds since 1970. */
export function clock(seconds, withSeconds = true) {
  const at = new Date(seconds * 1000);
  const short = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return withSeconds ? `${short}:${two(at.getSeconds())}` : short;
}

export function day(seconds) {
  const at = new Date(seconds * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** When something happened: the time of today, the day too if it was another one. */
export function moment(seconds) {
  const today = day(seconds) === day(Date.now() / 1000);
  return today ? clock(seconds) : `${day(seconds)} ${clock(seconds, false)}`;
}

export const plural = (value, one, many) => `${whole.format(value)} ${value === 1 ? one : many}`;

/** Sets a node's text, and touches nothing when it is there already. */
export function put(node, text) {
  const inside = node.firstChild;
  if (inside === null) {
    if (text !== '') node.append(text);
  } else if (inside.data !== text) {
    inside.data = text;
  }
}

/** Sets an attribute, and touches nothing when it is there already. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** A node with attributes, and with text or nodes in it. */
export function make(tag, attributes = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}

/**
 * Makes the children of a node those that `wanted` names, in its order, between `before` nodes that stay and `after`:
 * those that were there stay the same nodes, so that focus and selection live on.
 */
export function arrange(parent, known, wanted, create, first = parent.firstChild, last = null) {
  const keep = new Set(wanted);
  for (const [key, node] of known) {
    if (keep.has(key)) continue;
    if (node === first) first = node.nextSibling;
    node.remove();
    known.delete(key);
  }
  let next = first;
  for (const key of wanted) {
    let node = known.get(key);
    if (node === undefined) {
      node = create(key);
      known.set(key, node);
    }
    if (node === next) {
      next = next.nextSibling;
    } else {
      parent.insertBefore(node, next ?? last);
    }
  }
}

export const $ = (id) => document.getElementById(id);
