import { agentClient, agentFacts, agentSocket } from "../client/agent.ts";
import type { ConflictInfo, KeyholdClient, Status } from "../client/api.ts";
import { vaultPath } from "../client/home.ts";
import { kitState, type Profile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { givenPassword } from "../ui/password.ts";
import { homeOf, profileOf, withReader } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { waitingLines } from "./ceremonyshown.ts";

/** What can be said without a key. */
function lockedStatus(profile: Profile, path: string): Status {
  return {
    profile: profile.name,
    server: profile.server ? { url: profile.server.url, pin: profile.server.pin, reachable: false } : null,
    account: profile.account && profile.userId ? { name: profile.account, userId: profile.userId } : null,
    session: null,
    vault: { path, secrets: 0, locked: true },
    sync: null,
    auditHead: null,
  };
}

function waiting({ session }: Status, queued: number): string {
  const changes = queued === 1 ? "1 change waits" : `${queued} changes wait`;
  return `${changes} for the server${session === null ? " (keyhold login sends them)" : " (keyhold sync sends them)"}`;
}

const SAYS = {
  changed: (theirs: string, ours: string) => `another device made ${theirs}, this one ${ours} on top of it`,
  name: () => "it keeps its name: another secret has the new one by now",
  "removed-there": (theirs: string, ours: string) =>
    `another device removed it at ${theirs}, this one brought it back with ${ours}`,
  "removed-here": (theirs: string) => `it was not removed: another device had changed it (${theirs})`,
} as const;

/** A conflict, and the commands that solve it. */
function conflictLines({ name, kind, theirs, ours }: ConflictInfo): readonly string[] {
  const shown = plain(name);
  const solve = {
    changed: `keyhold restore ${shown} --version ${theirs ?? ours}`,
    name: `keyhold rename ${shown} NEW`,
    "removed-there": `keyhold remove ${shown}`,
    "removed-here": `keyhold remove ${shown}`,
  }[kind];
  const keep = `keyhold restore ${shown} --version ${ours ?? theirs}`;
  return [
    `conflict  ${shown}: ${SAYS[kind](`version ${theirs}`, `version ${ours}`)}`,
    `          look: keyhold history ${shown}; change it: ${solve}; keep it: ${keep}`,
  ];
}

/** What `init` does about the recovery kit. */
const KIT_LINES = {
  none: "none made on this device: keyhold init offers one",
  unconfirmed: "not confirmed: keyhold init offers a new one",
  confirmed: "confirmed",
} as const;

/** How long what waits in ceremonies is asked for. */
const CEREMONIES_MS = 3_000;

/** What waits for this vault in ceremonies; nothing where it cannot be asked soon. */
async function ceremoniesWaiting(client: Pick<KeyholdClient, "ceremonies">): Promise<readonly string[]> {
  const asked = client.ceremonies().then(waitingLines, (error: unknown) => {
    if (error instanceof Fault) return [];
    throw error;
  });
  return Promise.race([asked, Bun.sleep(CEREMONIES_MS).then(() => [])]);
}

function lines(
  status: Status,
  { loggedOut, ...profile }: Profile,
  withheld: boolean,
  waits: readonly string[],
): string {
  const { server, account, session, vault, sync, auditHead } = status;
  return [
    `profile   ${status.profile}`,
    `server    ${server ? `${server.url}${vault.locked || server.reachable ? "" : withheld ? "  (not asked: it wants a code)" : "  (away)"}` : "none: local vault only"}`,
    `account   ${account ? plain(account.name) : "none"}`,
    `session   ${loggedOut ? "logged out" : session ? (session.valid ? `valid until ${session.expiresAt}` : "over (keyhold login)") : "none"}`,
    `vault     ${vault.locked ? "locked" : `${vault.secrets} secrets`}   ${plain(vault.path)}`,
    `sync      ${sync ? `revision ${sync.revision}, ${sync.syncedAt ?? "never"}${sync.pending ? ", a change is pending" : ""}${sync.rewrapping ? ", keys are being wrapped anew" : ""}` : "-"}`,
    ...(sync && sync.queued > 0 ? [`queued    ${waiting(status, sync.queued)}`] : []),
    `audit     ${auditHead ? `entry ${auditHead.seq}, ${auditHead.linkHex.slice(0, 16)}…` : "-"}`,
    `kit       ${KIT_LINES[kitState(profile)]}`,
    ...waits.map((line) => `ceremony  ${line}`),
    ...(sync?.conflicts ?? []).flatMap(conflictLines),
  ].join("\n");
}

export default defineCommand({
  args: {},
  details:
    "Changes that wait for a server that was away are counted. What two devices changed is listed with both versions until one is made the newest again, or a new one stored. What waits for you in ceremonies is shown to people, and not with --json: keyhold ceremony status.",
  data: "{profile, server, account, session, vault, sync:{revision, syncedAt, pending, rewrapping, queued, conflicts:[{keyId, name, kind, theirs, ours, at}]}, auditHead, kit, loggedOut}",
  examples: [["keyhold status", "server, session, vault and what is pending"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const socket = agentSocket(ctx.dirs.runtime, profile.name);
    const path = vaultPath(homeOf(ctx), profile);
    let status = lockedStatus(profile, path);
    let withheld = false;
    const given = await givenPassword(ctx);
    let waits: readonly string[] = [];
    const read = async (client: Pick<KeyholdClient, "status" | "ceremonies">, leftOut: boolean) => {
      status = await client.status();
      withheld = leftOut;
      // for people: a prompt asks with --json, every second
      const there = status.server === null || status.server.reachable;
      if (there && !ctx.flags.json && !ctx.flags.quiet) waits = await ceremoniesWaiting(client);
    };
    if (profile.loggedOut) wipe(given ?? undefined);
    else if (given) await withReader(ctx, read, given);
    else if ((await agentFacts(socket)) !== undefined)
      await read(
        agentClient(socket, (text) => ctx.out.notice(plain(text))),
        false,
      );
    const data = { ...status, kit: kitState(profile), loggedOut: profile.loggedOut };
    return result(data, () => lines(status, profile, withheld, waits));
  },
});
