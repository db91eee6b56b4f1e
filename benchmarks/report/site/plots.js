// Pictures of the embedded numbers, drawn as SVG: seeds, differences, mean ranks, cost, learning curves.
const WIDTH = 460;
const LEFT = 136;
const ROW_HEIGHT = 22;

const scale = ([low, high], [from, to]) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
const extent = (values, room = 0.06) => {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) * room;
  return [low - margin, high + margin];
};
const ticks = ([low, high], wanted = 5) => {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, n) => (first + n) * step);
};
const tickText = (value) => String(Number(value.toPrecision(6))).replace("-", "−");
const factor = (metric) => (DATA.metrics[metric].unit === "%" ? 100 : 1);

const figure = (title, alt, height, marks, note, width = WIDTH) => el(
  "figure", { class: "plot" }, el("figcaption", {}, title, note && el("span", { class: "brief" }, note)),
  svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt }, marks),
);
const text = (x, y, content, props = {}) => svg("text", { x, y, ...props }, content);
const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });

const bottomAxis = (x, domain, height, title) => [
  ...ticks(domain).map((value) => [line(x(value), 4, x(value), height - 32, "grid"),
    text(x(value), height - 18, tickText(value), { class: "tick", "text-anchor": "middle" })]),
  text((x(domain[0]) + x(domain[1])) / 2, height - 4, title, { class: "axis", "text-anchor": "middle" }),
].flat();

const plotted = (group, metric) => {
  const { rows: terms } = searched();
  return group.rows.filter((row) => row.variant === FULL && row.cells[metric] && chosen("method", row.method) &&
    holds(methodText(row.method), terms) && (!state.complete || isComplete(group, row.method, metric)));
};
const named = (row, y) => text(LEFT - 8, y + 4, row.label, { class: row.method === DATA.ours ? "label ours" : "label", "text-anchor": "end" });

// Every run of every method, and the mean.
const stripPlot = (group, metric) => {
  const rows = plotted(group, metric);
  const by = factor(metric);
  const runs = (row) => RUNS.filter((run) => run.group === group && run.row === row && run.status === "done")
    .map((run) => scoreOf(run, metric)).filter(isNumber).map((value) => value * by);
  const values = rows.map(runs);
  const best = group.ceiling[metric] ? group.ceiling[metric].value * by : null;
  const domain = extent([...values.flat(), ...(best === null ? [] : [best])]);
  const x = scale(domain, [LEFT, WIDTH - 14]);
  const height = rows.length * ROW_HEIGHT + 44;
  const marks = rows.map((row, n) => {
    const y = 16 + n * ROW_HEIGHT;
    const ours = row.method === DATA.ours ? " ours" : "";
    return [named(row, y), values[n].map((value) => svg("circle", { cx: x(value), cy: y, r: 3.6, class: `dot${ours}` })),
      line(x(row.cells[metric].mean * by), y - 8, x(row.cells[metric].mean * by), y + 8, `mean${ours}`)];
  });
  const ceiling = best === null ? [] : [line(x(best), 4, x(best), height - 32, "ceiling")];
  return figure("Seeds", `Every run and the mean of ${rows.length} methods, ${DATA.metrics[metric].title}. The values stand in the runs view.`,
    height, [bottomAxis(x, domain, height, DATA.metrics[metric].heading), ceiling, marks],
    `one dot a run, bar: mean${best === null ? "" : "; dashed: best reachable"}`);
};

// CLCR minus each rival with its 95 % interval.
const forestPlot = (group, metric) => {
  const rows = plotted(group, metric).filter((row) => isNumber(row.cells[metric].difference));
  if (!rows.length) return null;
  const by = factor(metric);
  const right = WIDTH - 156;
  const domain = extent([0, ...rows.flatMap((row) => [row.cells[metric].low * by, row.cells[metric].high * by])]);
  const x = scale(domain, [LEFT, right]);
  const height = rows.length * ROW_HEIGHT + 44;
  const marks = rows.map((row, n) => {
    const cell = row.cells[metric];
    const y = 16 + n * ROW_HEIGHT;
    const kind = { 1: "better", "-1": "worse", 0: "open" }[cell.better];
    return [named(row, y), line(x(cell.low * by), y, x(cell.high * by), y, `range ${kind}`),
      svg("circle", { cx: x(cell.difference * by), cy: y, r: 4, class: `point ${kind}` }),
      text(WIDTH, y + 4, `${cell.gap}${DATA.marks[cell.better] ? ` ${DATA.marks[cell.better]}` : ""}`, { class: "value", "text-anchor": "end" })];
  });
  const better = DATA.metrics[metric].direction === "max" ? "right" : "left";
  const alt = rows.map((row) => `${row.label} ${row.cells[metric].gap}`).join("; ");
  return figure("CLCR minus the other method", `Differences of ${DATA.metrics[metric].title} with 95 % intervals: ${alt}.`, height,
    [bottomAxis(x, domain, height, `${DATA.metrics[metric].heading}; CLCR better: ${better}`), line(x(0), 4, x(0), height - 32, "zero"), marks],
    "95 % interval, paired t by seed; filled: significant after Holm, hollow: undecided");
};

// Mean time of a run against the mean score.
const costPlot = (group, metric) => {
  const costs = DATA.tables.cost.parts[group.data].filter((section) => section.group === group.id).flatMap((section) => section.records);
  const by = factor(metric);
  const points = plotted(group, metric).map((row) => ({ row, y: row.cells[metric].mean * by,
    x: costs.find((cost) => cost.method === row.method && cost.variant === FULL)?.time_s_mean })).filter((point) => point.x > 0);
  if (!points.length) return null;
  const height = 240;
  const across = extent(points.map((point) => Math.log10(point.x)), 0.08);
  const up = extent(points.map((point) => point.y), 0.1);
  const x = scale(across, [46, WIDTH - 134]);
  const y = scale(up, [height - 40, 10]);
  const seconds = [1, 2, 5].flatMap((n) => [-2, -1, 0, 1, 2, 3, 4, 5].map((power) => n * 10 ** power))
    .filter((value) => Math.log10(value) >= across[0] && Math.log10(value) <= across[1]);
  const axes = [ticks(up).map((value) => [line(46, y(value), WIDTH - 134, y(value), "grid"), text(40, y(value) + 4, tickText(value), { class: "tick", "text-anchor": "end" })]),
    seconds.map((value) => text(x(Math.log10(value)), height - 22, tickText(value), { class: "tick", "text-anchor": "middle" })),
    text((46 + WIDTH - 134) / 2, height - 5, "mean time of a run (s, logarithmic)", { class: "axis", "text-anchor": "middle" })];
  const labels = spread(points.map((point) => ({ ...point, at: y(point.y) })), 13);
  const marks = labels.map(({ row, x: time, at, place }) => [
    svg("circle", { cx: x(Math.log10(time)), cy: at, r: 4.2, class: row.method === DATA.ours ? "dot solid ours" : "dot solid" }),
    line(x(Math.log10(time)) + 5, at, WIDTH - 130, place, "leader"),
    text(WIDTH - 126, place + 4, row.label, { class: row.method === DATA.ours ? "label ours" : "label" }),
  ]);
  const alt = points.map((point) => `${point.row.label} ${point.x.toPrecision(3)} s, ${tickText(Number(point.y.toPrecision(4)))}`).join("; ");
  return figure(group.name, `Mean time of a run against ${DATA.metrics[metric].title}: ${alt}.`, height, [axes, marks],
    `${DATA.metrics[metric].heading}, mean over seeds; seeds that trained together share their program's time`);
};

// Labels in the order of their points, at least so far apart, as near to them as that allows.
const spread = (points, apart) => {
  const found = [...points].sort((a, b) => a.at - b.at);
  found.forEach((point, n) => { point.place = n ? Math.max(point.at, found[n - 1].place + apart) : point.at; });
  const over = found.length ? Math.max(0, found.at(-1).place - 205) : 0;
  if (over) found.forEach((point, n) => { point.place = Math.max(point.place - over, 8 + n * apart); });
  return found;
};

// Mean ranks on a line; bars join methods that are closer than the critical difference.
const rankPlot = ({ profile, groups, ranks, critical }) => {
  const width = 920;
  const ordered = [...ranks].sort((a, b) => a[2] - b[2]);
  const half = Math.ceil(ordered.length / 2);
  const last = Math.max(ordered.length, 2);
  const x = scale([1, last], [190, width - 190]);
  const bars = ordered.map(([, , rank], n) => [n, ordered.findLastIndex(([, , other]) => other - rank <= critical)])
    .filter(([from, to], n, all) => to > from && !all.some(([f, t], m) => m < n && f <= from && t >= to));
  const base = 64;
  const top = base + 14 + bars.length * 9;
  const height = top + half * 20 + 8;
  const marks = ordered.map(([name, method, rank], n) => {
    const left = n < half;
    const y = top + 10 + (left ? n : ordered.length - 1 - n) * 20;
    const end = left ? 184 : width - 184;
    return [svg("polyline", { points: `${x(rank)},${base} ${x(rank)},${y} ${end},${y}`, class: method === DATA.ours ? "stem ours" : "stem" }),
      text(left ? end - 6 : end + 6, y + 4, `${name}  ${rank.toFixed(2)}`, { class: method === DATA.ours ? "label ours" : "label", "text-anchor": left ? "end" : "start" })];
  });
  const axis = [line(x(1), base, x(last), base, "zero"), ...Array.from({ length: last }, (_, n) => [line(x(n + 1), base - 5, x(n + 1), base, "zero"),
    text(x(n + 1), base - 10, String(n + 1), { class: "tick", "text-anchor": "middle" })])];
  const span = x(Math.min(last, 1 + critical));
  const ruler = [line(x(1), 24, span, 24, "critical"), text(x(1), 16, `critical difference ${critical.toFixed(2)}${1 + critical > last ? ", longer than the axis" : ""}`, { class: "tick" })];
  const joined = bars.map(([from, to], n) => line(x(ordered[from][2]) - 4, base + 10 + n * 9, x(ordered[to][2]) + 4, base + 10 + n * 9, "joined"));
  return figure(`Mean ranks, profile ${profile}`, `Mean ranks: ${ordered.map(([name, , rank]) => `${name} ${rank.toFixed(2)}`).join(", ")}.`, height,
    [axis, ruler, joined, marks],
    `${many(groups.length, "benchmark")}, main metric, 1 is best: ${groups.join("; ")}. Nemenyi's critical difference at 0.05; bars join what it cannot tell apart. A picture: with so few benchmarks nothing is concluded from it.`, width);
};

const drawPlots = () => {
  const columns = matrixColumns();
  const ranks = DATA.ranks[state.data].map(rankPlot);
  const rows = columns.map(({ group, metric }) => el(
    "section", { class: "sheet" }, el("h2", {}, `${group.name}: ${DATA.metrics[metric].title}`), el("p", { class: "said" }, group.brief.join("; "), "."),
    plotted(group, metric).length ? el("div", { class: "plots" }, forestPlot(group, metric), stripPlot(group, metric))
      : el("p", { class: "empty" }, "Nothing here fits the filters."),
  ));
  const costs = columns.map(({ group, metric }) => costPlot(group, metric));
  return [...rows, el("section", { class: "sheet" }, el("h2", {}, announced("Cost against score")), el("div", { class: "plots" }, costs)), ranks.length ? el("section", { class: "sheet" }, el("h2", {}, announced("Critical difference")), el("div", { class: "plots wide" }, ranks)) : null];
};

// A learning curve: one line a fold; a ring where the epoch was selected.
const curvePlot = (title, folds, name, epochs, by) => {
  const width = 340;
  const height = 170;
  const at = folds.map((fold) => fold.epochs ?? fold[name].map((_, n) => n + 1));
  const values = folds.flatMap((fold) => fold[name]).filter(isNumber).map((value) => value * by);
  if (!values.length) return null;
  const domain = extent(values);
  const last = Math.max(...at.flat());
  const x = scale([1, last], [48, width - 10]);
  const y = scale(domain, [height - 32, 8]);
  const axes = [ticks(domain).map((value) => [line(48, y(value), width - 10, y(value), "grid"), text(42, y(value) + 4, tickText(value), { class: "tick", "text-anchor": "end" })]),
    [1, last].map((epoch) => text(x(epoch), height - 17, String(epoch), { class: "tick", "text-anchor": "middle" })),
    text((48 + width) / 2, height - 4, "epoch", { class: "axis", "text-anchor": "middle" })];
  const marks = folds.map((fold, n) => {
    const points = at[n].map((epoch, k) => `${x(epoch).toFixed(1)},${y(fold[name][k] * by).toFixed(1)}`).join(" ");
    const k = at[n].indexOf(epochs[n]);
    return [svg("polyline", { points, class: "curve" }),
      k >= 0 ? svg("circle", { cx: x(epochs[n]), cy: y(fold[name][k] * by), r: 4, class: "ring" }) : null];
  });
  return figure(title, `${title} over ${last} epochs, ${many(folds.length, "fold")}, selected: ${epochs.join(", ")}.`, height, [axes, marks], null, width);
};
