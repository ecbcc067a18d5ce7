import {
  clientLoginFinish,
  clientLoginStart,
  clientRegisterFinish,
  clientRegisterStart,
  opaqueReady,
} from "../crypto/opaque.ts";
import { Fault } from "../errors.ts";
import type { ClientJob, ClientResult } from "./opaque.ts";

declare const self: Worker;

/** Between the two messages of one exchange; the Worker serves one exchange and ends. */
let exchange: { kind: "register" | "login"; password: string; state: string } | undefined;

function work(job: ClientJob): ClientResult {
  if (job.kind === "start") {
    const password = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(job.password);
    job.password.fill(0);
    const made = job.exchange === "register" ? clientRegisterStart(password) : clientLoginStart(password);
    exchange = { kind: job.exchange, password, state: made.state };
    return { kind: "start", request: made.request };
  }
  if (!exchange) throw new Fault("internal", "an OPAQUE exchange was finished before it was started");
  const { password, state, kind } = exchange;
  if (kind === "register") {
    const cost = job.costs[0];
    const response = job.responses[0];
    if (!cost || !response) throw new Fault("internal", "nothing to register with");
    return { kind: "finish", ...clientRegisterFinish(password, job.account, state, response, cost), setup: 0 };
  }
  for (const [setup, response] of job.responses.entries()) {
    for (const cost of job.costs) {
      const done = clientLoginFinish(password, job.account, state, response, cost);
      if (done) return { kind: "finish", ...done, setup };
    }
  }
  return { kind: "refused" };
}

self.onmessage = async (event: MessageEvent<ClientJob>) => {
  try {
    await opaqueReady();
    self.postMessage({ result: work(event.data) });
  } catch (error) {
    const known = error instanceof Fault;
    self.postMessage({ code: known ? error.code : "internal", message: known ? error.message : "OPAQUE failed" });
  }
};
