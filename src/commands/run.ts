import { readFileSync } from "node:fs";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { become, childEnvironment } from "../ui/run.ts";
import { withClient } from "../ui/session.ts";
import { decodeText } from "../ui/text.ts";
import { fieldOf } from "./read.ts";
import { ENCODING_ARG, parseReference, type Reference, valueText } from "./secretargs.ts";

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

interface Wanted {
  readonly variable: string;
  readonly reference: Reference;
}

function assignment(text: string): [string, string] {
  const at = text.indexOf("=");
  const name = text.slice(0, Math.max(0, at));
  if (!NAME.test(name))
    throw new Fault("usage", "--env takes NAME=kh://REFERENCE", { hint: "--env DATABASE_KEY=kh://db/prod" });
  return [name, text.slice(at + 1)];
}

/** Lines `NAME=VALUE` of a file; values that are no references pass as they are. */
function envFile(path: string): [string, string][] {
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch {
    throw new Fault("bad_input", `cannot read ${JSON.stringify(path)}`);
  }
  const lines = content.split(/\r?\n/).map((line) => line.trim());
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [name, raw] = assignment(line.replace(/^export\s+/, ""));
      return [name, raw.replace(/^(["'])(.*)\1$/, "$2")];
    });
}

/** Values of all references by variable: one batch for each profile. */
async function resolve(
  ctx: Context,
  wanted: readonly Wanted[],
  encoding: "base64url" | "base64" | "hex" | null,
): Promise<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const profile of new Set(wanted.map(({ reference }) => reference.profile))) {
    const mine = wanted.filter(({ reference }) => reference.profile === profile);
    const chosen = profile === null ? ctx : { ...ctx, flags: { ...ctx.flags, profile } };
    await withClient(chosen, async (client) => {
      const refs = mine.map(({ reference }) => ({ name: reference.name, version: reference.version }));
      const got = await client.getMany({ refs, fresh: false, purpose: "get" });
      for (const [i, { info, value }] of got.entries()) {
        const one = mine[i];
        if (!one || !value) throw new Fault("internal", "a value is missing");
        const bytes = fieldOf(one.reference.field, value, info.publicKey);
        const text = bytes === value ? valueText(info.type, value, encoding) : decodeText(bytes);
        wipe(value);
        if (text.includes("\0"))
          throw new Fault("bad_input", `${JSON.stringify(info.name)} holds a zero byte, which no variable can`, {
            hint: "--encoding base64url",
          });
        values[one.variable] = text;
      }
    });
  }
  return values;
}

export default defineCommand({
  args: {
    env: { type: "list", hint: "NAME=REF", description: "set a variable to a secret's value (repeatable)" },
    envFile: { type: "string", hint: "FILE", description: "lines NAME=VALUE; kh:// references are resolved" },
    ...ENCODING_ARG,
  },
  rest: { hint: "CMD [ARG…]", description: "the command, which replaces keyhold", required: true },
  examples: [["keyhold run --env DATABASE_KEY=kh://db/prod -- ./app", "the app sees the value in its environment"]],
  run: async (args, ctx) => {
    const pairs = [...(args.envFile === null ? [] : envFile(args.envFile)), ...args.env.map(assignment)];
    const literal: Record<string, string> = {};
    const wanted: Wanted[] = [];
    for (const [variable, text] of pairs) {
      if (text.startsWith("kh://")) wanted.push({ variable, reference: parseReference(text) });
      else if (args.env.includes(`${variable}=${text}`)) throw new Fault("usage", "--env takes NAME=kh://REFERENCE");
      else literal[variable] = text;
    }
    const secret = wanted.length === 0 ? {} : await resolve(ctx, wanted, args.encoding);
    const ended = await become(ctx.rest, childEnvironment(ctx.inherited, { ...literal, ...secret }));
    return typeof ended === "number" ? ended : ctx.out.fail(ended.fault, ended.exit);
  },
});
