// A report of runs, or a comparison of two: charts, then samples.
"use strict";

page.load().then((data) => {
  page.comparison = data.comparison;
  charts.draw(data.charts);
  gallery.start(data.tasks, data.images);
  document.documentElement.dataset.ready = "yes";
});
