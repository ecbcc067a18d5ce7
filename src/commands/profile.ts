import { agentSocket, lockAgent } from "../client/agent.ts";
import { vaultPath } from "../client/home.ts";
import {
  asProfileName,
  defaultProfile,
  listProfiles,
  readProfile,
  removeProfile,
  useProfile,
} from "../client/profile.ts";
import { removeVaultFile } from "../client/vaultfile.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { homeOf } from "../ui/session.ts";

const NAME = {
  name: { type: "positional", complete: "profile", description: "name of the profile", ask: "Profile" },
} as const;

function there(directory: string, name: string) {
  const profile = readProfile(directory, asProfileName(name));
  if (!profile) throw new Fault("not_found", `there is no profile "${name}"`, { hint: "keyhold profile list" });
  return profile;
}

export const profileList = defineCommand({
  list: true,
  args: {},
  data: "{items:[{name, server, account, default, loggedOut}], next}",
  examples: [["keyhold profile list", "servers and accounts of this home"]],
  run: async (_args, ctx) => {
    const { profiles } = homeOf(ctx);
    const chosen = defaultProfile(profiles);
    const items = listProfiles(profiles).map((name) => {
      const profile = readProfile(profiles, name);
      return {
        name,
        server: profile?.server?.url ?? null,
        account: profile?.account ?? null,
        default: name === chosen,
        loggedOut: profile?.loggedOut ?? false,
      };
    });
    const rows = items.map((one) => [
      one.name,
      one.server ?? "(local)",
      one.account ?? "-",
      one.default ? "default" : "",
    ]);
    return listing({ items, next: null }, { heads: ["PROFILE", "SERVER", "ACCOUNT", ""], cells: rows });
  },
});

export const profileUse = defineCommand({
  args: NAME,
  data: "{name, default}",
  examples: [["keyhold profile use work", "make it the default one"]],
  run: async (args, ctx) => {
    const { profiles } = homeOf(ctx);
    const { name } = there(profiles, args.name);
    await useProfile(profiles, name);
    return result({ name, default: true }, () => `${name} is the default profile`);
  },
});

export const profileRemove = defineCommand({
  args: NAME,
  data: "{name, removed}",
  details: "The account on the server stays; secrets that lie in this vault alone are lost.",
  examples: [["keyhold profile remove old", "remove profile and vault from this device"]],
  run: async (args, ctx) => {
    const home = homeOf(ctx);
    const profile = there(home.profiles, args.name);
    await ctx.term.confirm(`Remove profile ${profile.name} and its vault from this device?`);
    await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
    await removeVaultFile(vaultPath(home, profile));
    await removeProfile(home.profiles, profile.name);
    return result({ name: profile.name, removed: true }, () => `removed ${profile.name}`);
  },
});

export const profileAdd = defineCommand({
  args: { ...NAME },
  data: "{name, next:[…]}, the command lines that make it",
  details: "A profile is made by `init`, `register` or `login` with --profile NAME; this one shows how.",
  examples: [["keyhold profile add work", "the commands that make it"]],
  run: async (args, ctx) => {
    const { profiles } = homeOf(ctx);
    const name = asProfileName(args.name);
    if (readProfile(profiles, name))
      throw new Fault("exists", `the profile "${name}" exists already`, { hint: "keyhold profile list" });
    const next = [
      `keyhold register --profile ${name} --server URL --pin PIN --account NAME`,
      `keyhold login --profile ${name} --server URL --pin PIN --account NAME`,
      `keyhold init --local --profile ${name}`,
    ];
    return result({ name, next }, () => ["Make it with one of:", ...next.map((line) => `  ${line}`)].join("\n"));
  },
});

export const profileAuthority = defineCommand({
  args: { name: { type: "positional", required: false, complete: "profile", description: "name of the profile" } },
  data: "{name, server, pin, authority}",
  details: `Prints the certificate, PEM, of the authority behind the profile's server, as it was held against the pin. A program that
trusts it alone speaks with that server and no other.`,
  examples: [["keyhold profile authority > authority.pem", "for curl --cacert, NODE_EXTRA_CA_CERTS and their like"]],
  run: async (args, ctx) => {
    const { profiles } = homeOf(ctx);
    const { name, server } = there(profiles, args.name ?? ctx.flags.profile ?? defaultProfile(profiles) ?? "default");
    if (server === null) throw new Fault("not_found", `the profile "${name}" has no server`);
    const authority = server.caPem ?? server.tlsCaPem;
    if (authority === null) {
      throw new Fault("not_found", "no authority of its own stands behind this server", {
        why: "its certificate comes from a public authority, or it was never reached",
        hint: "keyhold login, or trust the public authorities",
      });
    }
    const pem = authority.trimEnd();
    return result({ name, server: server.url, pin: server.pin, authority: `${pem}\n` }, () => pem, { bare: true });
  },
});
