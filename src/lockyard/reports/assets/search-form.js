"use strict";
// The words travel behind the #: a page from a file has no server that could read a query.
document.querySelector(".search").addEventListener("submit", function (event) {
  event.preventDefault();
  location.href = "packages.html#" + encodeURIComponent(document.getElementById("q").value);
});
