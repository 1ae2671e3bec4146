// Line charts that follow a few values as time goes on. What a chart shows is there as a table too.
import {h, newId, replace, svg, table} from './dom.js';
import {ago} from './format.js';

const kWidth = 560;
const kHeight = 170;
const kLeft = 54;
const kRight = 8;
const kTop = 10;
const kBottom = 22;
const kShortestS = 60;
const kLongestS = 300;
const kTableRows = 20;
const kGridLines = 4;

/** Between two grid lines: 1, 2, 2.5 or 5 times a power of ten, and a whole number of wholes. */
function gridStep(highest, isWhole) {
  const least = Math.max(highest / kGridLines, isWhole ? 1 : 1e-6);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find(
    (step) => step >= least * 0.999 && !(isWhole && step % 1 > 0));
}

/**
 * @param {{title: string, note?: string, series: string[], format: function(number): string,
 *   isWhole?: boolean}} options
 * @returns {{element: HTMLElement, update: function({at: number, values: (?number)[]}[]): void}}
 *   `update` takes all points, oldest first; `at` in seconds; null values leave a gap
 */
export function lineChart({title, note, series, format, isWhole = false}) {
  const id = newId('chart');
  const lines = series.map((_, i) => svg('path', {class: `line series-${i}`}));
  const area = series.length === 1 ? svg('path', {class: 'area series-0'}) : null;
  const grid = svg('g', {class: 'grid'});
  const cursor = svg('line', {class: 'cursor', y1: kTop, y2: kHeight - kBottom});
  const picture = svg('svg', {viewBox: `0 0 ${kWidth} ${kHeight}`, role: 'img',
    'aria-labelledby': `${id}-title ${id}-summary`}, grid, area, lines, cursor);
  cursor.style.display = 'none';
  const values = series.map(() => h('span', {class: 'value'}, '–'));
  const when = h('span', {class: 'when'}, 'now');
  const summary = h('p', {class: 'visually-hidden', id: `${id}-summary`}, 'No values yet.');
  const rows = h('div', {});
  const details = h('details', {}, h('summary', {}, 'As a table',
    h('span', {class: 'visually-hidden'}, `: ${title}`)), rows);
  let points = [];
  let windowS = kShortestS;
  let picked = null;  // of points, while the pointer is over the chart

  const x = (at) => kWidth - kRight - (points.at(-1).at - at) / windowS * (kWidth - kLeft - kRight);

  function showValues() {
    const point = picked ?? points.at(-1);
    series.forEach((_, i) => {
      const value = point?.values[i];
      values[i].textContent = value === null || value === undefined ? '–' : format(value);
    });
    when.textContent = point ? ago(points.at(-1).at - point.at) : 'now';
  }

  function drawTable() {
    if (!details.open) return;
    replace(rows, table({
      caption: `${title}, the last values`, rows: points.slice(-kTableRows).reverse(),
      empty: 'No values yet.',
      columns: [{label: 'When', cell: (point) => ago(points.at(-1).at - point.at)},
        ...series.map((name, i) => ({label: name, number: true, cell: (point) => (
          point.values[i] === null ? '–' : format(point.values[i]))}))],
    }));
  }
  details.addEventListener('toggle', drawTable);

  function update(all) {
    const last = all.at(-1)?.at ?? 0;
    points = all.filter((point) => point.at >= last - kLongestS);
    if (points.length === 0) return;
    // As long as there is something to show, in whole minutes.
    windowS = Math.min(kLongestS, Math.ceil((last - points[0].at) / 60 + 0.001) * 60);
    const known = points.flatMap((point) => point.values).filter((value) => value !== null);
    const top = gridStep(Math.max(0, ...known), isWhole) * kGridLines;
    const y = (value) => kHeight - kBottom - value / top * (kHeight - kTop - kBottom);

    replace(grid,
      Array.from({length: kGridLines + 1}, (_, i) => {
        const value = top * i / kGridLines;
        return [svg('line', {x1: kLeft, x2: kWidth - kRight, y1: y(value), y2: y(value)}),
          svg('text', {x: kLeft - 6, y: y(value) + 3.5, 'text-anchor': 'end'}, format(value))];
      }),
      [4, 3, 2, 1, 0].map((quarter) => svg('text', {
        x: x(last - quarter / 4 * windowS), y: kHeight - 6,
        'text-anchor': quarter === 0 ? 'end' : quarter === 4 ? 'start' : 'middle',
      }, ago(quarter / 4 * windowS))));

    series.forEach((_, i) => {
      let path = '';
      let pen = 'M';
      for (const point of points) {
        const value = point.values[i];
        if (value === null) {
          pen = 'M';
          continue;
        }
        path += `${pen}${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
        // A value between two gaps is a dot.
        if (pen === 'M') path += 'h0.01';
        pen = 'L';
      }
      lines[i].setAttribute('d', path);
      if (area && i === 0) area.setAttribute('d', areaPath(y));
    });
    const said = series.map((name, i) => {
      const of = points.map((point) => point.values[i]).filter((value) => value !== null);
      return of.length === 0 ? `${name}: no values` : `${name}: now ${format(of.at(-1))}, ` +
        `lowest ${format(Math.min(...of))}, highest ${format(Math.max(...of))}`;
    });
    summary.textContent = `${said.join('; ')}; over the last ${Math.round(windowS / 60)} minutes.`;
    showValues();
    drawTable();
  }

  function areaPath(y) {
    let path = '';
    let run = [];
    const close = () => {
      if (run.length > 1)
        path += `M${run.map((point) => `${x(point.at).toFixed(1)} ${
          y(point.values[0]).toFixed(1)}`).join('L')}L${x(run.at(-1).at).toFixed(1)} ${y(0)}L${
          x(run[0].at).toFixed(1)} ${y(0)}Z`;
      run = [];
    };
    for (const point of points) {
      if (point.values[0] === null) close();
      else run.push(point);
    }
    close();
    return path;
  }

  picture.addEventListener('pointermove', (event) => {
    if (points.length === 0) return;
    const box = picture.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * kWidth;
    picked = points.reduce((best, point) => (
      Math.abs(x(point.at) - at) < Math.abs(x(best.at) - at) ? point : best));
    cursor.style.display = '';
    cursor.setAttribute('x1', x(picked.at));
    cursor.setAttribute('x2', x(picked.at));
    showValues();
  });
  picture.addEventListener('pointerleave', () => {
    picked = null;
    cursor.style.display = 'none';
    showValues();
  });

  const element = h('figure', {class: 'chart'},
    h('figcaption', {},
      h('span', {class: 'chart-title', id: `${id}-title`}, title),
      note && h('span', {class: 'hint'}, note), when),
    h('div', {class: 'legend', 'aria-hidden': 'true'}, series.map((name, i) => h('span', {},
      h('span', {class: `swatch series-${i}`}), name, ' ', values[i]))),
    picture, summary, details);
  return {element, update};
}
