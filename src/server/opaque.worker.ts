import { opaqueReady, serverLoginFinish, serverLoginStart, serverRegister } from "../crypto/opaque.ts";
import { Fault } from "../errors.ts";
import type { OpaqueJob, OpaqueResult } from "./opaque.ts";

declare const self: Worker;

function work(job: OpaqueJob): OpaqueResult {
  switch (job.kind) {
    case "register":
      return { kind: "register", response: serverRegister(job.setup, job.credentialId, job.request) };
    case "login-start":
      return {
        kind: "login-start",
        ...serverLoginStart(job.setup, job.credentialId, job.account, job.record, job.request),
      };
    case "login-finish":
      return { kind: "login-finish", sessionKey: serverLoginFinish(job.state, job.account, job.finish) ?? null };
  }
}

self.onmessage = async (event: MessageEvent<{ id: number; job: OpaqueJob }>) => {
  const { id, job } = event.data;
  try {
    await opaqueReady();
    self.postMessage({ id, result: work(job) });
  } catch (error) {
    const bad = error instanceof Fault && error.code === "bad_input";
    self.postMessage({ id, bad, message: bad ? error.message : "OPAQUE failed" });
  }
};
