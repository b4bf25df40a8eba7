"use strict";
// The page is whole without this script, which finds and filters queries.
const tools = document.querySelector(".tools");
if (tools) {
  tools.hidden = false;
  const rows = [...document.querySelectorAll(".queries > li")];
  const texts = rows.map(() => null);
  const find = tools.querySelector("input[type=search]");
  const count = document.querySelector("#count");
  const answers = tools.querySelector("select");
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = tools.querySelector("input[type=radio]:checked").value;
    let shown = 0;
    rows.forEach((row, number) => {
      let fits = (outcome === "all" || row.className === outcome) && (!answers || !answers.value || row.dataset.s === answers.value);
      if (fits && words.length) {
        texts[number] ??= row.textContent.toLowerCase();
        fits = words.every((word) => texts[number].includes(word));
      }
      row.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} queries`;
  };
  tools.addEventListener("input", show);
  tools.addEventListener("submit", (event) => event.preventDefault());
  show(); // a browser keeps what was typed when it loads the page again
}
