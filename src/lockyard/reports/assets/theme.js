"use strict";
// Dark and light follow the system until the button says otherwise; storage may be forbidden for a page from a file.
(function () {
  var key = "lockyard-theme", root = document.documentElement;
  function read() { try { return localStorage.getItem(key); } catch (error) { return null; } }
  function keep(value) { try { localStorage.setItem(key, value); } catch (error) { /* not kept */ } }
  function isDark() {
    var chosen = root.getAttribute("data-theme");
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  var stored = read();
  if (stored === "dark" || stored === "light") { root.setAttribute("data-theme", stored); }
  document.addEventListener("DOMContentLoaded", function () {
    var button = document.querySelector(".theme");
    function name() { button.textContent = isDark() ? "Light" : "Dark"; }
    button.hidden = false;
    name();
    button.addEventListener("click", function () {
      var value = isDark() ? "light" : "dark";
      root.setAttribute("data-theme", value);
      keep(value);
      name();
    });
  });
})();
