import { agentClient, agentFacts, agentSocket } from "../client/agent.ts";
import type { Status } from "../client/api.ts";
import { vaultPath } from "../client/home.ts";
import type { Profile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { givenPassword } from "../ui/password.ts";
import { homeOf, profileOf, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

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

function lines(status: Status, loggedOut: boolean): string {
  const { server, account, session, vault, sync, auditHead } = status;
  return [
    `profile   ${status.profile}`,
    `server    ${server ? `${server.url}${vault.locked ? "" : server.reachable ? "" : "  (away)"}` : "none: local vault only"}`,
    `account   ${account ? plain(account.name) : "none"}`,
    `session   ${loggedOut ? "logged out" : session ? (session.valid ? `valid until ${session.expiresAt}` : "over (keyhold login)") : "none"}`,
    `vault     ${vault.locked ? "locked" : `${vault.secrets} secrets`}   ${plain(vault.path)}`,
    `sync      ${sync ? `revision ${sync.revision}, ${sync.syncedAt ?? "never"}${sync.pending ? ", a change is pending" : ""}${sync.rewrapping ? ", keys are being wrapped anew" : ""}` : "-"}`,
    `audit     ${auditHead ? `entry ${auditHead.seq}, ${auditHead.linkHex.slice(0, 16)}…` : "-"}`,
  ].join("\n");
}

export default defineCommand({
  args: {},
  examples: [["keyhold status", "server, session, vault and what is pending"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const socket = agentSocket(ctx.dirs.runtime, profile.name);
    const path = vaultPath(homeOf(ctx), profile);
    let status = lockedStatus(profile, path);
    const given = await givenPassword(ctx);
    if (profile.loggedOut) wipe(given ?? undefined);
    else if (given) status = await withClient(ctx, (client) => client.status(), given);
    else if ((await agentFacts(socket)) !== undefined) status = await agentClient(socket, ctx.out.notice).status();
    return result({ ...status, loggedOut: profile.loggedOut }, () => lines(status, profile.loggedOut));
  },
});
