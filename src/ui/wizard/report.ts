import { ENROL_HINT } from "../../client/factorapi.ts";
import { vaultPath } from "../../client/home.ts";
import { kitState, type Profile } from "../../client/profile.ts";
import type { Context } from "../command.ts";
import type { InstalledCompletion } from "../completionfiles.ts";
import { toldOf } from "../completionfiles.ts";
import { type Result, result } from "../output.ts";
import { homeOf } from "../session.ts";
import { plain } from "../text.ts";
import type { LocalServer } from "./localserver.ts";

/** What `init` did or found. */
export interface Finished {
  readonly profile: Profile;
  readonly here: LocalServer | null;
  /** File of the kit that was just written. */
  readonly kitOut: string | null;
  readonly completion: InstalledCompletion | null;
  /** True when the home was there before. */
  readonly found: boolean;
  readonly requestId: string | null;
  /** Of a new account at a server that asks every one for a second factor. */
  readonly factor: "enabled" | "needed" | null;
}

/** The data of `init --json` and the lines for people. */
export function report(ctx: Context, done: Finished): Result {
  const { profile, here, kitOut, completion, requestId } = done;
  const vault = vaultPath(homeOf(ctx), profile);
  const { server, account, userId } = profile;
  const confirmed = kitState(profile) === "confirmed";
  const data = {
    profile: profile.name,
    vault,
    ...(server && { server: { url: server.url, pin: server.pin, ...(here && { pid: here.pid, dir: here.dir }) } }),
    ...(account !== null && { account }),
    ...(userId !== null && { userId }),
    kit: { ...(kitOut !== null && { out: kitOut }), confirmed },
    ...(completion && { completion }),
    ...(done.factor !== null && { factor: done.factor }),
  };
  return result(data, () => lines(done, vault).join("\n"), { requestId });
}

function lines({ profile, here, kitOut, completion, found, factor }: Finished, vault: string): readonly string[] {
  const { server, account, loggedOut } = profile;
  const kit = {
    none: "none yet: keyhold init makes one",
    unconfirmed: "not confirmed: keyhold init makes a new one",
    confirmed: "confirmed",
  }[kitState(profile)];
  const next = server ? "keyhold login" : "keyhold unlock";
  return [
    found ? `there is a home already (profile ${profile.name})` : `the vault is ready (profile ${profile.name})`,
    `  vault    ${plain(vault)}`,
    ...(server
      ? [`  server   ${server.url}`, `  account  ${plain(account ?? "")}${loggedOut ? "   (logged out)" : ""}`]
      : []),
    `  kit      ${kit}${kitOut === null ? "" : `   (${plain(kitOut)}: print it, then delete it)`}`,
    ...(completion ? [toldOf(completion)] : []),
    ...(here ? hostLines(here) : []),
    ...(factor === "needed" ? ["The server asks every account for a second factor first."] : []),
    found
      ? "Next: keyhold list"
      : factor === "needed"
        ? `Next: ${ENROL_HINT}, then ${next}`
        : `Next: ${next}, then keyhold generate NAME`,
  ];
}

function hostLines({ url, pid, log }: LocalServer): readonly string[] {
  const address = new URL(url).host;
  return [
    `The server runs as process ${pid}${log === null ? "" : `; its log is ${plain(log)}`}.`,
    `It stops with the machine; start it again with: keyhold serve --listen ${address}`,
    "To keep it running for good: the systemd units in deploy/ (docs/operations.md).",
  ];
}
