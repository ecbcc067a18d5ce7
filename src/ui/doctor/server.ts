import { examineServer } from "../../client/examine.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { type Finding, fail, ok, type Patient, warn } from "./finding.ts";

const SOON_MS = 30 * 86_400_000;
/** A second is the measure's own error. */
const SKEW_WARN_MS = 5_000;

/** Whether the pinned server answers, is the pinned one, and tells the same time. */
export async function checkServer({ profile, nowMs }: Patient): Promise<Finding[]> {
  if (!profile?.server) return [];
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
  const around = { now: Date.now, random, notice: () => undefined };
  const { fault, skewMs, certificateEndsMs } = await examineServer(profile.server, around);
  if (fault) {
    const away = fault.code === "unreachable" || fault.code === "timed_out";
    const fix = fault.hint ?? (away ? "try again, or ask its operator" : "ask its operator before you go on");
    const why = fault.why === undefined ? "" : ` (${fault.why})`;
    return [(away ? warn : fail)("server", `${fault.message}${why}`, fix)];
  }
  const findings = [ok("server", `${profile.server.url} answers and is the pinned one`)];
  if (skewMs !== null) {
    const seconds = Math.round(Math.abs(skewMs) / 1_000);
    const said = `this clock is ${seconds} s ${skewMs > 0 ? "behind" : "ahead of"} the server's`;
    if (Math.abs(skewMs) > DEFAULTS.clockSkewMs)
      findings.push(fail("clock", said, "set the clock: timedatectl set-ntp on"));
    else if (Math.abs(skewMs) > SKEW_WARN_MS) findings.push(warn("clock", said, "timedatectl set-ntp on"));
    else findings.push(ok("clock", "agrees with the server's"));
  }
  if (certificateEndsMs !== null) {
    const day = new Date(certificateEndsMs).toISOString().slice(0, 10);
    if (certificateEndsMs - nowMs < SOON_MS) {
      findings.push(warn("certificate", `the server's ends on ${day}`, "its operator: keyhold server rotate --tls"));
    } else findings.push(ok("certificate", `good until ${day}`));
  }
  return findings;
}
