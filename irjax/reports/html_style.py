"""CSS and JavaScript of the report page."""

CSS = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --panel: #f6f8fa;
  --accent: #0b62b0; --c0: #0072b2; --c1: #d55e00; --c2: #007f5f; --c3: #b5548c; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e6e9ec; --soft: #9ba5af; --line: #333a42;
  --panel: #1c2127; --accent: #6cb6ff; --c0: #56b4e9; --c1: #f0904a; --c2: #3ccf9f; --c3: #e39ac6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 10px; padding-bottom: 5px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 0; overflow-wrap: anywhere; }
p { margin: 6px 0; } .lead, figcaption, .note, small { color: var(--soft); }
.note, figcaption { font-size: 13px; } .print-only { display: none; }
.scroll { overflow-x: auto; } .tall { max-height: 430px; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--page); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 14px 5px 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } td:first-child { overflow-wrap: anywhere; min-width: 8em; }
thead th { border-bottom: 2px solid var(--soft); white-space: nowrap; }
td small { display: block; white-space: nowrap; font-size: 12px; }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--accent); }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 12px 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ul { margin: 6px 0; padding-left: 20px; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 28px; }
figure { margin: 0; break-inside: avoid; } .charts figure > b { display: block; font-size: 14px; margin-bottom: 2px; }
.chart { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); stroke-width: 1; } .guide { stroke: var(--line); stroke-width: 1; stroke-dasharray: 3 3; }
.axis { stroke: var(--soft); stroke-width: 1.2; }
.tick { fill: var(--soft); font-size: 11px; } .title { fill: var(--ink); font-size: 12px; } .key { fill: var(--ink);
  font-size: 11px; }
.legend { fill: var(--page); fill-opacity: .85; stroke: var(--line); }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
circle.c3 { fill: var(--c3); } circle.dot { fill: none; stroke-width: 1.8; }
article { margin: 22px 0 30px; padding-top: 4px; }
.case { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 18px; margin-top: 10px;
  align-items: start; }
.whole { width: 100%; height: auto; max-height: 470px; display: block; background: #000; }
.events { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 14px; }
.event { background: var(--panel); border: 1px solid var(--line); border-radius: 5px; padding: 8px; }
.pair { display: grid; grid-template-columns: 5fr 6fr; gap: 6px; align-items: center; }
.cut, .surface { width: 100%; height: auto; display: block; } .cut { background: #000; }
.cut image, .whole image { image-rendering: pixelated; }
.true, .found, .limit, .rim, .mark, .frame { fill: none; vector-effect: non-scaling-stroke; }
.true { stroke: #fff; stroke-width: 1.6; } .found { stroke: #e69f00; stroke-width: 1.6; stroke-dasharray: 3 2; }
.limit { stroke: #fff; stroke-width: 1; stroke-dasharray: 2 3; stroke-opacity: .8; }
.rim { stroke: #000; stroke-width: 3.6; stroke-opacity: .6; } .mark { stroke-width: 1.9; }
.frame { stroke: #fff; stroke-width: 1; } .number { fill: #fff; font-weight: 700; paint-order: stroke; stroke: #000;
  stroke-width: 3px; vector-effect: non-scaling-stroke; }
.surface .tick { font-size: 15px; } .surface .title { font-size: 16px; }
.key-line { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 13px; color: var(--soft); align-items: center; }
.key-line svg { width: 20px; height: 20px; vertical-align: -5px; margin-right: 5px; background: #3a3f45;
  border-radius: 3px; }
@media screen and (max-width: 860px) { main { padding: 20px 14px 40px; }
  .charts, .case { grid-template-columns: minmax(0, 1fr); }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 7px; } }
@media print { :root { color-scheme: light; --page: #fff; --ink: #000; --soft: #444; --line: #ccc; --panel: #fff;
  --c0: #0072b2; --c1: #d55e00; --c2: #007f5f; --c3: #b5548c; } main { max-width: none; padding: 0; }
  body { font-size: 11px; } table, dl, .note, figcaption, .key-line { font-size: 10.5px; } td small { font-size: 9px; }
  .print-only { display: block; } .sortable tbody tr:nth-child(n+41) { display: none; }
  article, .event, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } svg, .cut, .whole { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .case { grid-template-columns: minmax(0, 4fr) minmax(0, 8fr); } .tall { max-height: none; overflow: visible; } }
"""

# Sorts a table by the column whose heading is clicked: numbers by value, empty cells last.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = column && !isNaN(p) && !isNaN(q) ? p - q : x.localeCompare(y, undefined, {numeric: true});
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}
"""
