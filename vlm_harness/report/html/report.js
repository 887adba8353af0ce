// A report of runs, or a comparison of two: charts, then samples.
"use strict";

page.load().then((data) => {
  charts.draw(data.charts);
  gallery.start(data);
  document.documentElement.dataset.ready = "yes";
});
