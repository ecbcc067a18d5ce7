import type { KeyholdClient } from "../client/api.ts";
import type { FederationCheck, FederationInfo } from "../client/federationapi.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { pause } from "./pause.ts";

interface Place {
  readonly url: string;
  readonly pin: string;
}

/** A server as one word: its URL, `#`, and its pin. @throws Fault usage */
export function serverPlace(text: string): Place {
  const at = text.lastIndexOf("#");
  const [url, pin] = [text.slice(0, at), text.slice(at + 1)];
  if (at > 0 && URL.canParse(url) && /^sha256:[A-Za-z0-9_-]{43}$/.test(pin)) return { url, pin };
  throw new Fault("usage", `a server is given as URL#PIN, not "${text}"`, {
    hint: "`keyhold serve` prints both: https://host:7443#sha256:…",
  });
}

/** A code for one server. @throws Fault usage */
function inviteFor(text: string): { url: string; code: string } {
  const at = text.lastIndexOf("=");
  if (at > 0) return { url: text.slice(0, at), code: text.slice(at + 1) };
  throw new Fault("usage", `an invite is given as URL=CODE, not "${text}"`);
}

const serverLines = (info: FederationInfo): string[] =>
  info.servers.map((server) => `  ${server.index}  ${plain(server.url)}  ${server.pin}`);

function describe(info: FederationInfo): string {
  return [
    `${plain(info.name)}: any ${info.threshold} of ${info.servers.length} servers, epoch ${info.epoch}`,
    `  id            ${info.federationId}`,
    `  request key   ${info.requestKeyHex}`,
    `  approval key  ${info.approvalKeyHex}`,
    "",
    ...serverLines(info),
  ].join("\n");
}

const NAME = {
  type: "positional",
  required: false,
  description: "name of the federation (default: the only one)",
} as const;

/** A device that was set up by password alone would begin a second membership: the secret comes by a link. */
const NOT_JOINED = "keyhold federation join URL#PIN; if another device has joined, there: keyhold account device link";

/** The federation of a name, or the only one. @throws Fault not_found, ambiguous */
export function chosen(all: readonly FederationInfo[], name: string | null): FederationInfo {
  const found = all.filter((one) => name === null || one.name === name || one.federationId === name);
  const [first] = found;
  if (first && found.length === 1) return first;
  if (first) {
    throw new Fault("ambiguous", "this profile has joined more than one federation", {
      hint: `name one: ${all.map((one) => plain(one.name)).join(", ")}`,
    });
  }
  throw new Fault("not_found", name === null ? "this profile has joined no federation" : `no federation "${name}"`, {
    hint: all.length === 0 ? NOT_JOINED : `joined: ${all.map((one) => plain(one.name)).join(", ")}`,
  });
}

type Created = Awaited<ReturnType<KeyholdClient["createFederation"]>>;

const LOOK_MS = 1_000;

const rosterLines = ({ roster }: Created): string[] =>
  roster.map(({ url, state }) => `  ${state.padEnd(8)}  ${plain(url)}`);

export const federationCreate = defineCommand({
  args: {
    name: { type: "string", hint: "NAME", required: true, description: "name: lower-case letters, digits, . _ -" },
    threshold: {
      type: "integer",
      min: 2,
      max: 32,
      description: "servers that it takes to use a key (default: just more than half)",
    },
    server: { type: "list", hint: "URL#PIN", description: "a running key server (repeat for each)" },
    wait: { type: "boolean", description: "stay until all have accepted, and show who has" },
  },
  data: "{federationId, complete, roster:[{url, state}]}",
  details: `Lays the manifest before every server. Each operator accepts it on the server's own machine, with
\`keyhold server federation accept\`. Run the command again, --name is enough, to see who has, and to finish: it exits 9
until all have. With --wait it stays until then; nothing is lost by Ctrl-C.`,
  examples: [
    [
      "keyhold federation create --name custody --threshold 2 --server https://a:7443#sha256:… --server https://b:7443#sha256:… --server https://c:7443#sha256:…",
      "three servers, of which any two use a key",
    ],
    ["keyhold federation create --name custody --wait", "who has accepted so far, until all have"],
  ],
  run: async (args, ctx) => {
    const servers = args.server.map(serverPlace);
    const threshold = args.threshold ?? Math.floor(servers.length / 2) + 1;
    if (servers.length === 1) throw new Fault("usage", "a federation needs at least two servers", { hint: "--server" });
    if (servers.length === 0 && args.threshold !== null) throw new Fault("usage", "--threshold goes with --server");
    return withClient(ctx, async (client) => {
      const wanted = { name: args.name, threshold, servers };
      let made = await client.createFederation(wanted);
      let shown = "";
      while (args.wait && !made.complete) {
        const roster = rosterLines(made).join("\n");
        if (roster !== shown && !ctx.flags.json) ctx.out.notice(roster);
        shown = roster;
        await pause(LOOK_MS, ctx.signal);
        made = await client.createFederation(wanted);
      }
      const lines = rosterLines(made);
      const close = made.complete
        ? "Every server is a member. To use it: keyhold federation join URL#PIN"
        : `On each waiting server: keyhold server federation accept ${made.federationId.slice(0, 16)}`;
      return result(made, () => [`federation ${made.federationId}`, ...lines, close].join("\n"), {
        exit: made.complete ? 0 : 9,
      });
    });
  },
});

export const federationJoin = defineCommand({
  args: {
    server: { type: "positional", hint: "URL#PIN", description: "any server of the federation, with its pin" },
    name: { type: "string", hint: "NAME", description: "which federation, where the server belongs to several" },
    invite: { type: "list", hint: "URL=CODE", description: "an invite for a server that wants one (repeat)" },
  },
  data: "{name, federationId, epoch, threshold, servers, requestKeyHex, approvalKeyHex}",
  details: `Pins the manifest, which all servers have signed, and registers with every server by credentials made from a random
secret. The secret lies in this vault, in the recovery kit and in device links; no password goes to these servers.`,
  examples: [["keyhold federation join https://a.example:7443#sha256:…", "join by any one of its servers"]],
  run: async (args, ctx) => {
    const place = serverPlace(args.server);
    const invites = args.invite.map(inviteFor);
    return withClient(ctx, async (client) => {
      const joining = client.joinFederation({ ...place, name: args.name, invites });
      const info = await ctx.term.step("Joining", joining);
      return result(info, () => describe(info));
    });
  },
});

export const federationShow = defineCommand({
  args: { name: NAME },
  data: "{name, federationId, epoch, threshold, servers, requestKeyHex, approvalKeyHex}",
  examples: [["keyhold federation show", "servers, threshold, and this account's keys there"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = chosen(await client.federations(), args.name);
      return result(info, () => describe(info));
    }),
});

export const federationMembers = defineCommand({
  list: true,
  args: { name: NAME },
  data: "{items:[{index, url, pin}], next}",
  examples: [["keyhold federation members custody --plain", "index, URL and pin of each server"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { servers } = chosen(await client.federations(), args.name);
      const cells = servers.map(({ index, url, pin }) => [String(index), url, pin]);
      return listing({ items: servers, next: null }, { heads: ["INDEX", "URL", "PIN"], cells, name: 1 });
    }),
});

function checkLines(check: FederationCheck): string {
  const servers = check.servers.map((s) => {
    const facts = [
      s.version ?? "",
      s.tls ?? "",
      s.latencyMs === null ? "" : `${s.latencyMs} ms`,
      s.clockSkewMs === null ? "" : `clock ${s.clockSkewMs >= 0 ? "+" : ""}${s.clockSkewMs} ms`,
    ];
    const known = facts.filter((fact) => fact !== "").join(", ");
    return `  ${s.state === "ok" ? "✔" : "✘"} ${s.index}  ${plain(s.url)}  ${plain(s.state)}${known && `  (${known})`}`;
  });
  const keys = check.keys.map((key) => {
    const name = plain(key.name ?? `${key.keyId.slice(0, 16)}…`);
    const held = [
      `${key.live.length} live shares, ${key.threshold} needed`,
      `certificate on ${key.certified.length}`,
      `generation ${key.generation} of ${key.refreshedAt.slice(0, 16)}`,
    ].join(", ");
    return `  ${key.proposal === null ? "✔" : "✘"} ${name}  ${held}${key.proposal === null ? "" : `\n      ${key.proposal}`}`;
  });
  return ["Servers", ...servers, ...(keys.length > 0 ? ["", "Keys", ...keys] : [])].join("\n");
}

export const federationCheck = defineCommand({
  args: { name: NAME },
  data: "{ok, servers:[{index, url, state, version, latencyMs, clockSkewMs, tls}], keys:[{name, keyId, generation, threshold, live, certified, refreshedAt, proposal}]}",
  details:
    "Exits 10 when a server is away or wrong, or a key has no share to spare; each finding says what to do about it.",
  examples: [["keyhold federation check", "reachability, clocks, versions, and how many shares each key has"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = chosen(await client.federations(), args.name);
      const check = await ctx.term.step("Asking every server", client.checkFederation({ federation: info.name }));
      return result(check, () => checkLines(check), { exit: check.ok ? 0 : 10 });
    }),
});
