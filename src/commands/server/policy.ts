import { resolve } from "node:path";
import { Fault } from "../../errors.ts";
import { OPERATOR_NAME, OPERATOR_SCOPE, type PolicyDocument, policyHash } from "../../protocol/federation/policy.ts";
import { type Context, defineCommand } from "../../ui/command.ts";
import { result } from "../../ui/output.ts";
import { readSecretFile } from "../../ui/password.ts";
import { surroundings } from "../../ui/session.ts";
import { plain } from "../../ui/text.ts";
import { list } from "../../wire/codec.ts";
import { type ControlOutput, type RemoteFiles, remoteFiles } from "../../wire/control.ts";
import { POLICY_FILE_MAX, policyDocumentJson, policyFromJson } from "../../wire/federation/policyfile.ts";
import { DIR } from "./admin.ts";
import { askServing } from "./federation.ts";

type Shown = ControlOutput<"policy.show">;

/** A JSON file. @throws Fault bad_input, not_found */
function readJson(path: string): unknown {
  const bytes = readSecretFile(resolve(path), POLICY_FILE_MAX, "accept");
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Fault("bad_input", `${JSON.stringify(path)} is not JSON in UTF-8`, {
      hint: "docs/policies.md has examples",
    });
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The file's document as the next link: its admin is the operator, whom it need not name. */
function nextLink(value: unknown, { policy, operator }: Shown, nowMs: number): PolicyDocument {
  if (!isRecord(value)) throw new Fault("bad_input", "a policy is a JSON object", { hint: "docs/policies.md" });
  const given = value["approvers"] ?? [];
  const approvers = Array.isArray(given) ? given : [];
  const named = approvers.some((one) => isRecord(one) && one["name"] === OPERATOR_NAME);
  const own = named ? [] : [{ name: OPERATOR_NAME, key: operator.toHex() }];
  const whole = {
    ...value,
    approvers: Array.isArray(given) ? [...given, ...own] : given,
    admins: value["admins"] ?? OPERATOR_NAME,
  };
  return policyFromJson(whole, {
    federationId: OPERATOR_SCOPE,
    version: (policy?.document.version ?? 0) + 1,
    previous: policy ? policyHash(policy.document) : new Uint8Array(32),
    createdAtMs: nowMs,
  });
}

function enginesOf(path: string): readonly RemoteFiles[] {
  return list(remoteFiles, { max: 64 }).decode(readJson(path), "engines");
}

const dataOf = ({ policyId, policy, remotes }: Omit<Shown, "operator">) => ({
  policyId,
  version: policy?.document.version ?? 0,
  document: policy && policyDocumentJson(policy.document),
  engines: remotes,
});

function describe({ policyId, policy, remotes }: Shown): string {
  const rules = policy ? JSON.stringify(policyDocumentJson(policy.document), null, 2).split("\n").map(plain) : [];
  return [
    policyId && policy
      ? `policy ${plain(policy.document.name)}, version ${policy.document.version}   (${policyId})`
      : "no policy: this server does what a key's owner and the key's own policy say",
    ...rules,
    ...remotes.map(({ url }) => `may ask ${plain(url)}`),
  ].join("\n");
}

const ask = (ctx: Context, dir: string | null) => askServing(ctx, dir, "policy.show", {});

export const operatorPolicyShow = defineCommand({
  args: DIR,
  data: "{policyId, version, document, engines}",
  examples: [["keyhold server policy show", "what this server asks before it uses a share"]],
  run: async (args, ctx) => {
    const shown = await ask(ctx, args.dir);
    return result(dataOf(shown), () => describe(shown));
  },
});

export const operatorPolicySet = defineCommand({
  args: {
    file: {
      type: "positional",
      hint: "FILE",
      required: false,
      description: "the policy, as docs/policies.md describes it",
    },
    none: { type: "boolean", description: "have no policy any more" },
    engines: {
      type: "string",
      hint: "FILE",
      description: "JSON list of {url, ca, cert, key}: engines that may be asked, with PEM files",
    },
    ...DIR,
  },
  data: "{policyId, version, document, engines}",
  details:
    "The server signs the policy; its enclave obeys it. Set it before `server federation accept`: a manifest names the " +
    "policy that it began with, and newer versions of that one follow it. Without `admins` the file's admin is this " +
    "server's operator.",
  examples: [
    ["keyhold server policy set house-rules.json", "this server's own say in every request"],
    ["keyhold server policy set --engines engines.json", "let policies ask a remote engine, over mutual TLS"],
  ],
  run: async (args, ctx) => {
    if ((args.file !== null && args.none) || (args.file === null && !args.none && args.engines === null)) {
      throw new Fault("usage", "give a policy's FILE, or --none, or --engines alone", {
        hint: "keyhold help server policy set",
      });
    }
    const before = await ask(ctx, args.dir);
    const document = args.file === null ? null : nextLink(readJson(args.file), before, surroundings(ctx).now());
    const remotes = args.engines === null ? null : enginesOf(args.engines);
    if (args.none) await ctx.term.confirm("Have no policy? New manifests then leave this server's say to the owner");
    await askServing(ctx, args.dir, "policy.set", { document, drop: args.none, remotes });
    const shown = await ask(ctx, args.dir);
    return result(dataOf(shown), () => describe(shown));
  },
});
