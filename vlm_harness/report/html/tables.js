// Make tables sortable and, if they are long, searchable.
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  const long = table.tBodies[0].rows.length > 12;
  new DataTable(table, {
    columnDefs: [{ targets: "number", orderSequence: ["desc", "asc"] }], // best first
    paging: false,
    info: false,
    searching: long,
    order: [],
    autoWidth: false,
    layout: { topStart: null, topEnd: long ? "search" : null, bottomStart: null, bottomEnd: null },
    language: { search: "Find ", emptyTable: "", zeroRecords: "No matching rows." },
  });
}
