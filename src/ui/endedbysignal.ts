import { constants as os } from "node:os";

/** A signal that ended work which had to leave nothing behind, and did. */
export class EndedBySignal extends Error {
  override readonly name = "EndedBySignal";
  readonly signal: NodeJS.Signals;
  /** 128 and the signal's number. */
  readonly exit: number;
  constructor(signal: NodeJS.Signals) {
    super(signal);
    this.signal = signal;
    this.exit = 128 + os.signals[signal];
  }
}
