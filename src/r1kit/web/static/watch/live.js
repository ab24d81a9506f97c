// News from the server. The browser's EventSource reconnects by itself unless the server answers with an error.

import { clock } from "./format.js";

const NAMES = ["runs", "stage", "step", "rollouts", "rows"];
const AGAIN_MS = 2000;

/**
 * Follow one run, or only the list of runs. `tell(name, data)` hears of every event, and of "again" after a gap, when
 * anything may have changed. `show(state, text)` hears of the connection: live or lost.
 */
export class Live {
  constructor(tell, show) {
    Object.assign(this, { tell, show, run: null, source: null, lost: false });
  }

  follow(run) {
    if (this.source && run === this.run) return;
    this.run = run;
    this.open();
  }

  open() {
    this.source?.close();
    clearTimeout(this.timer);
    const source = new EventSource(`/api/events${this.run ? `?run=${encodeURIComponent(this.run)}` : ""}`);
    this.source = source;
    source.onopen = () => {
      if (this.lost) this.tell("again", {});
      this.lost = false;
      this.show("live", "Live");
    };
    source.onerror = () => {
      if (!this.lost)
        this.show(
          "lost",
          `No answer from the server since ${clock()}. The page keeps what it has and reconnects by itself.`,
        );
      this.lost = true;
      if (source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.open(), AGAIN_MS);
    };
    for (const name of NAMES) source.addEventListener(name, (event) => this.tell(name, JSON.parse(event.data)));
  }
}
