import type { KeyholdClient } from "../client/api.ts";
import type { Collected } from "../client/ceremonyapi.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asHashId, type CeremonyId } from "../ids.ts";
import { FEDERATED_TYPES } from "../protocol/federation/kinds.ts";
import { ceremonyOrigin } from "../protocol/provenance.ts";
import { SECRET_TYPES } from "../protocol/secrettype.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { CEREMONY } from "./ceremony.ts";
import { federatedResult } from "./federated.ts";
import { isSecret } from "./federatedkey.ts";
import { chosen } from "./federation.ts";
import { QUEUED, writtenData, writtenLine } from "./secretargs.ts";

const ARGS = {
  ceremony: CEREMONY,
  store: { type: "string", hint: "NAME", description: "as a secret of this name (default: the ceremony's)" },
  replace: { type: "boolean", description: "make a new version where the secret is there" },
  ...OUT_FILE_ARGS,
  out: {
    type: "string",
    hint: "FILE",
    description: "into a new file, 0600, as the vault would keep it, and not into the vault",
  },
  importInto: {
    type: "string",
    hint: "FEDERATION",
    description: "share it out among the servers of a federation instead",
  },
  type: {
    type: "enum",
    options: FEDERATED_TYPES,
    description: "with --import-into: as what kind of key (default: its own)",
  },
} as const;
type Given = Values<typeof ARGS>;

/** Whether the ceremony's server has seen the value: of a wallet each participant has its own key, and nobody else. */
const isSeen = ({ kind }: Collected): boolean => kind !== "multisig";

/** Keeps what was collected in the vault, under its own type, marked with where it comes from (P12). */
async function keep(
  ctx: Context,
  client: KeyholdClient,
  { name, ceremonyId }: { readonly name: string; readonly ceremonyId: CeremonyId },
  replace: boolean,
  got: Collected,
): Promise<Result> {
  const type = SECRET_TYPES.find((one) => one === got.type);
  if (type === undefined) throw new Fault("unsupported", `this version of keyhold keeps no ${got.type}`);
  const origin = isSeen(got) ? { origin: ceremonyOrigin(ceremonyId) } : {};
  const about = { name, type, value: got.value, tags: [], where: null, ...origin };
  const input = { ...about, ...(replace ? {} : { ifVersion: 0 }) };
  const { info, requestId, queued } = await ctx.term.step("Storing", client.store(input));
  const data = { ...writtenData(info), kind: got.kind, ...(queued ? { queued } : {}) };
  const where = got.kind === "multisig" ? "No server ever had it." : "The server's store has it still.";
  const lines = [`${writtenLine(info)}`, where, ...(queued ? [QUEUED] : [])];
  return result(data, () => lines.join("\n"), { requestId, exit: queued ? 10 : 0 });
}

/** Shares it out among a federation's servers; the key stays marked with where it comes from (P12). */
async function importInto(
  ctx: Context,
  client: KeyholdClient,
  args: Given,
  name: string,
  got: Collected,
): Promise<Result> {
  const { name: federation } = chosen(await client.federations(), args.importInto);
  const type = args.type ?? FEDERATED_TYPES.find((one) => one === got.type);
  if (type === undefined) {
    throw new Fault("usage", `a federation has no keys of type ${got.type}`, {
      hint: "--type bytes shares out its bytes",
    });
  }
  const { value } = got;
  const how = {
    name,
    federation,
    type,
    bytes: value.length,
    custody: "self",
    control: "unilateral",
    policy: null,
    origin: isSeen(got) ? "custodial" : "imported",
  } as const;
  const made = await ctx.term.step("Sharing it out", client.importFederated({ ...how, value }));
  return federatedResult(made, ({ keyId }) =>
    isSeen(got)
      ? `${plain(name)}  ${keyId}   (custodial for good: the ceremony's server has it still)`
      : `${plain(name)}  ${keyId}   (imported)`,
  );
}

/** Refuses a name that is taken, before anybody is asked to agree. */
async function demandFree(client: KeyholdClient, name: string): Promise<void> {
  if (!(await isSecret(client, name))) return;
  throw new Fault("exists", `there is a secret "${name}" already`, {
    hint: "--store NAME for another name, or --replace",
  });
}

export const ceremonyCollect = defineCommand({
  args: ARGS,
  data: "{name, keyId, type, version, custody?, kind, …}; with --out {ceremonyId, kind, type, out}; with --import-into {requestId, status, keyId, publicKeyHex, absent}; never the value",
  details: `Takes the value out of the server's key store where the ceremony's policy lets you, and keeps it in the vault. It exits 9
while participants must agree: they run \`keyhold ceremony approve\`, and you this again. Of a wallet each participant
collects its own key, which no server ever had. Any other value stays marked as custodial, in the vault and in a federation:
the ceremony's server has seen it.`,
  examples: [
    ["keyhold ceremony collect backup-key", "into the vault, as backup-key"],
    ["keyhold ceremony collect backup-key --out backup.key", "into a file"],
    ["keyhold ceremony collect signer --import-into custody", "shared out among the servers of a federation"],
  ],
  run: async (args, ctx) => {
    const ways = [args.out !== null && "--out", args.importInto !== null && "--import-into"].filter(Boolean);
    if (ways.length > 1) throw new Fault("usage", `${ways.join(" and ")} exclude each other`);
    if (args.type !== null && args.importInto === null) throw new Fault("usage", "--type goes with --import-into");
    if (args.out === "-") throw new Fault("usage", "the value goes into a file or the vault, not to stdout");
    const file = outFile(args);
    return withClient(ctx, async (client) => {
      const { ceremonyId, name } = await client.ceremony({ ceremony: args.ceremony });
      const as = args.store ?? name;
      if (file === null && !args.replace) await demandFree(client, as);
      const got = await ctx.term.step("Collecting", client.ceremonyCollect({ ceremony: args.ceremony }));
      try {
        if (args.importInto !== null) return await importInto(ctx, client, args, as, got);
        if (file === null)
          return await keep(ctx, client, { name: as, ceremonyId: asHashId<CeremonyId>(ceremonyId) }, args.replace, got);
        putFile(file, got.value);
        const data = { ceremonyId, kind: got.kind, type: got.type, out: file.path };
        return result(data, () => `${got.type} of ${plain(name)} is in ${plain(file.path)}`);
      } finally {
        wipe(got.value);
      }
    });
  },
});
