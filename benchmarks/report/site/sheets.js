// A sheet is a table before it is drawn or downloaded: {title, facts, notes, columns, rows}.
// column: {id, title, numeric, first: the direction of the first click, over: {title, brief} of several columns}
// row: {cells, records, ours, foot}, and sortKey(column) where cells are only made when they are seen; cell: {text, sort, sub, mark, bold, open, tone, missing}
const PAGE_ROWS = 50;
const SHORT = 32; // characters of a text that is not broken over lines
const collator = new Intl.Collator("en", { numeric: true });

const compare = (a, b) => {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : collator.compare(a, b);
};

const sorting = (sheet) => {
  const column = sheet.columns.findIndex(({ id }) => id === state.sort.replace(/^-/, ""));
  return { column, down: state.sort.startsWith("-") };
};

// In the order asked for; what has no value stays last, and the foot stays below.
const sorted = (sheet) => {
  const { column, down } = sorting(sheet);
  if (column < 0) return sheet.rows;
  const key = (row) => (row.sortKey ? row.sortKey(column) : row.cells[column].sort) ?? null;
  const body = sheet.rows.filter((row) => !row.foot);
  const keyed = body.map((row) => ({ row, by: key(row) }));
  const known = keyed.filter(({ by }) => by !== null).sort((a, b) => (down ? -1 : 1) * compare(a.by, b.by));
  const rows = [...known, ...keyed.filter(({ by }) => by === null)].map(({ row }) => row);
  return [...rows, ...sheet.rows.filter((row) => row.foot)];
};

// First click: the better way round; second: the other; third: back to the order of the tables.
const nextSort = (column) => {
  const first = column.first === "down" ? `-${column.id}` : column.id;
  const second = column.first === "down" ? column.id : `-${column.id}`;
  return state.sort === first ? second : state.sort === second ? "" : first;
};

const drawHead = (sheet) => {
  const { column: at, down } = sorting(sheet);
  const heads = sheet.columns.map((column, place) => el(
    "th",
    { scope: "col", class: column.numeric ? "number" : null,
      "aria-sort": place === at ? (down ? "descending" : "ascending") : "none" },
    button(column.title, () => { update({ sort: nextSort(column) }); say(sortedBy(sheet)); },
      { class: "sort", "data-key": `sort ${sheet.title} ${column.id}` }),
  ));
  if (!sheet.columns.some((column) => column.over)) return el("thead", {}, el("tr", {}, heads));
  const over = [];
  sheet.columns.forEach((column) => {
    if (over.length && over.at(-1).over === column.over) over.at(-1).span += 1;
    else over.push({ over: column.over, span: 1 });
  });
  const tops = over.map(({ over: group, span }) => (group
    ? el("th", { scope: "colgroup", colspan: span, class: "over" }, group.title,
      group.brief.map((line) => el("span", { class: "brief" }, line)))
    : el("td", { colspan: span })));
  return el("thead", {}, el("tr", {}, tops), el("tr", {}, heads));
};

const sortedBy = (sheet) => {
  const { column, down } = sorting(sheet);
  if (column < 0) return "Order of the tables.";
  return `Sorted by ${sheet.columns[column].title}, ${down ? "descending" : "ascending"}.`;
};

const drawCell = (cell, column) => {
  const inner = [
    el("span", { class: cell.bold ? "best" : null }, cell.text),
    cell.mark && [" ", el("span", { class: "mark", "aria-hidden": "true" }, cell.mark), spoken(`, ${cell.markWords}`)],
    cell.flag && el("span", { class: "flag" }, cell.flag),
    cell.sub && el("span", { class: "sub" }, cell.sub),
  ];
  const open = cell.open && (() => update({ open: cell.open }, true));
  const held = open ? el("button", { type: "button", class: "cell", click: open, "data-key": `open ${cell.open}` }, inner) : inner;
  const kind = [column.numeric && "number", cell.missing && "missing", cell.tone, cell.text.length <= SHORT && "short"].filter(Boolean).join(" ");
  return el("td", { class: kind || null }, held);
};

const drawRow = (sheet) => (row) => {
  const [head, ...cells] = row.cells;
  const name = drawCell(head, sheet.columns[0]);
  const first = el("th", { scope: "row", class: name.className || null }, ...name.childNodes);
  return el("tr", { class: row.ours ? "ours" : null }, first, cells.map((cell, n) => drawCell(cell, sheet.columns[n + 1])));
};

// A committed table is titled by its benchmark alone; on a page of synthetic data every title says so.
const announced = (title) =>
  (state.data === "twin" && !title.startsWith("Synthetic") ? `${DATA.kinds.twin}: ${title}` : title);

const drawSheet = (sheet) => {
  const rows = sorted(sheet);
  const foot = rows.filter((row) => row.foot);
  const body = rows.filter((row) => !row.foot);
  const start = Math.min(page * PAGE_ROWS, Math.max(0, body.length - 1));
  const paged = body.length > PAGE_ROWS * 1.5;
  const seen = paged ? body.slice(start, start + PAGE_ROWS) : body;
  return el(
    "section", { class: "sheet" },
    sheet.title && el("h2", {}, announced(sheet.title)),
    sheet.facts?.length ? el("p", { class: "said" }, sheet.facts.join(" ")) : null,
    rows.length
      ? scroller(sheet.title, el("table", {}, el("caption", { class: "spoken" }, announced(sheet.title)),
        drawHead(sheet), el("tbody", {}, seen.map(drawRow(sheet))), foot.length ? el("tfoot", {}, foot.map(drawRow(sheet))) : null))
      : el("p", { class: "empty" }, sheet.empty ?? "Nothing here fits the filters."),
    paged ? drawPager(body.length, start) : null,
    sheet.cards ? el("div", { class: "cards" }, sheet.cards.map(drawCard)) : drawNotes(sheet.notes),
  );
};

const drawNotes = (notes) => (notes?.length ? el("ul", { class: "notes" }, notes.map((note) => el("li", {}, note))) : null);
const drawCard = ({ title, facts: said, notes }) =>
  el("section", {}, el("h3", {}, title), el("p", { class: "said" }, said.join(" ")), drawNotes(notes));

const turn = (step) => { page += step; update({ page }); };
const drawPager = (total, start) => el(
  "p", { class: "pager" },
  button("Previous", () => turn(-1), { disabled: start === 0, "data-key": "previous" }),
  ` Rows ${start + 1} to ${Math.min(total, start + PAGE_ROWS)} of ${total.toLocaleString("en")} `,
  button("Next", () => turn(1), { disabled: start + PAGE_ROWS >= total, "data-key": "next" }),
);

// The number that a printed cell begins with, or its text: what a column of a committed table is sorted by.
const sortKey = (text) => {
  if (text === DASH) return null;
  const found = text.replaceAll("−", "-").replace(/(\d),(?=\d{3})/g, "$1").match(/^([<>]?) ?([+-]?\d+(?:\.\d+)?)(?![\w-])/);
  if (!found) return text;
  return Number(found[2]) + ({ "<": -1e-9, ">": 1e-9 }[found[1]] ?? 0);
};
const looksNumeric = (texts) => texts.length > 0 && texts.every((text) => /^[\d+−—<>]/.test(text));
