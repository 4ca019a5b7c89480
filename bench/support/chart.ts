/** A report as a picture: one bar chart a table, the rates of its rows on one scale, as SVG without anything to load. */

import { formatFigure } from './render.js';
import type { Section } from './workload.js';

const WIDTH = 760;
const LABEL_WIDTH = 210;
const BAR_HEIGHT = 20;
const GAP = 8;
const HEAD = 46;
const OWN = '#1f6feb';
const OTHER = '#9aa4b2';

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** @param source said below the title: machine, commit, date @returns `undefined` when the table has no rates to draw */
export function renderChart({ title, unit, rows }: Section, source: string): string | undefined {
  const drawn = rows.filter((row) => row.rate !== undefined && Number.isFinite(row.rate));
  if (drawn.length < 2) return undefined;
  const most = Math.max(...drawn.map(({ rate }) => rate ?? 0));
  const height = HEAD + drawn.length * (BAR_HEIGHT + GAP) + GAP;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13" role="img">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="10" y="18" font-weight="bold">${escape(`${title} (${unit}/s)`)}</text>`,
    `<text x="10" y="35" font-size="11" fill="#57606a">${escape(source)}</text>`,
  ];
  for (const [i, { task, rate = 0, ratio }] of drawn.entries()) {
    const y = HEAD + i * (BAR_HEIGHT + GAP);
    const width = Math.max(1, Math.round(((WIDTH - LABEL_WIDTH - 170) * rate) / most));
    const told = ratio === undefined ? formatFigure(rate) : `${formatFigure(rate)}, ${formatFigure(ratio)} x lmdb-js`;
    lines.push(
      `<text x="${LABEL_WIDTH - 8}" y="${y + 15}" text-anchor="end">${escape(task)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${width}" height="${BAR_HEIGHT}" fill="${task.startsWith('FlashVector') ? OWN : OTHER}"/>`,
      `<text x="${LABEL_WIDTH + width + 6}" y="${y + 15}" fill="#24292f">${escape(told)}</text>`,
    );
  }
  lines.push('</svg>', '');
  return lines.join('\n');
}
