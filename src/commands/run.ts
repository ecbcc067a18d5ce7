import { Fault } from "../errors.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import type { MaskedValue } from "../ui/mask.ts";
import { MASK_MIN_BYTES } from "../ui/maskforms.ts";
import { become, childEnvironment, isUnsafeVariable } from "../ui/run.ts";
import { readEnvFile } from "./envfile.ts";
import {
  isReference,
  parseReference,
  type Reference,
  type Resolved,
  referenceText,
  resolvedText,
  withReferences,
} from "./references.ts";
import { ENCODING_ARG } from "./secretargs.ts";

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** What a variable gets: text, or the value that a reference leads to. */
type Wanted = { readonly literal: string } | { readonly reference: Reference };

function assignment(text: string): [string, Wanted] {
  const at = text.indexOf("=");
  const name = text.slice(0, Math.max(0, at));
  const reference = text.slice(at + 1);
  if (!NAME.test(name) || name === "__proto__" || !isReference(reference)) {
    throw new Fault("usage", "--env takes NAME=kh://REFERENCE", {
      hint: "--env DATABASE_KEY=kh://db/prod   (values that are no secret: --env-file)",
    });
  }
  return [name, { reference: parseReference(reference) }];
}

/** Variables of the file, then those of `--env`, which win. */
async function wantedOf(args: {
  env: readonly string[];
  envFile: string | null;
  allowUnsafeEnv: boolean;
}): Promise<ReadonlyMap<string, Wanted>> {
  const wanted = new Map<string, Wanted>();
  for (const { name, value, line } of args.envFile === null ? [] : await readEnvFile(args.envFile)) {
    try {
      wanted.set(name, isReference(value) ? { reference: parseReference(value) } : { literal: value });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      throw new Fault(error.code, `line ${line} of ${JSON.stringify(args.envFile)} has a reference that is none`, {
        ...(error.why === undefined ? {} : { why: error.why }),
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    }
  }
  for (const [name, one] of args.env.map(assignment)) wanted.set(name, one);
  const unsafe = [...wanted].find(([name, one]) => "reference" in one && isUnsafeVariable(name))?.[0];
  if (unsafe !== undefined && !args.allowUnsafeEnv) {
    throw new Fault("denied", `${unsafe} decides which code the command runs or whom it trusts: no secret sets it`, {
      hint: "choose another variable, or --allow-unsafe-env",
    });
  }
  return wanted;
}

interface Filled {
  readonly variables: Record<string, string>;
  readonly masked: readonly MaskedValue[];
}

/** Variables with their values: all or none. */
async function fill(
  ctx: Context,
  wanted: ReadonlyMap<string, Wanted>,
  encoding: Values<typeof ENCODING_ARG>["encoding"],
): Promise<Filled> {
  const variables: Record<string, string> = {};
  const references: [string, Reference][] = [];
  for (const [name, one] of wanted) {
    if ("reference" in one) references.push([name, one.reference]);
    else variables[name] = one.literal;
  }
  const masked: MaskedValue[] = [];
  await withReferences(
    ctx,
    references.map(([, reference]) => reference),
    { fresh: false },
    async (values) => {
      for (const [i, value] of values.entries()) {
        const variable = references[i]?.[0] ?? "";
        const text = resolvedText(value, encoding);
        if (text.includes("\0")) {
          throw new Fault("bad_input", `${JSON.stringify(value.name)} holds a zero byte, which no variable can`, {
            hint: "--encoding base64url",
          });
        }
        variables[variable] = text;
        masked.push(...maskedValues(value, text));
      }
    },
  );
  return { variables, masked };
}

/** The value as it is and as the child gets it. */
function maskedValues({ reference, bytes, text: isText }: Resolved, text: string): MaskedValue[] {
  const label = `<${referenceText(reference)}>`;
  const given = { value: new TextEncoder().encode(text), label };
  return isText ? [given] : [{ value: bytes.slice(), label }, given];
}

export default defineCommand({
  args: {
    env: { type: "list", hint: "NAME=REF", description: "set a variable to a secret's value or field (repeatable)" },
    envFile: { type: "string", hint: "FILE", description: "lines NAME=VALUE; values that are references are resolved" },
    mask: { type: "boolean", description: "replace the values in what the command prints" },
    clean: { type: "boolean", description: "pass on PATH, HOME, TERM and the like alone" },
    allowUnsafeEnv: { type: "boolean", description: "let references set PATH, LD_PRELOAD, NODE_OPTIONS and the like" },
    ...ENCODING_ARG,
  },
  data: "none: the child has the streams and the exit code",
  rest: { hint: "CMD [ARG…]", description: "the command, which replaces keyhold", required: true },
  details: `The command sees the variables and no other part of keyhold: without KEYHOLD_* and BUN_*, which are left out, it has
the environment that keyhold was started with. It is started only if every reference is resolved.

With --mask keyhold stays beside it, on a terminal of its own where there is one, and replaces values of at least
${MASK_MIN_BYTES} bytes, their base64, hex, percent-encoded, JSON and shell forms too, by their references. It keeps accidents
off screens and logs; a command that wants to can still show a value in another form.`,
  examples: [
    ["keyhold run --env DATABASE_KEY=kh://db/prod -- ./app", "the app sees the value in its environment"],
    ["keyhold run --env-file app.env --mask -- ./app", "variables from a file, values masked in the output"],
    ["keyhold run --env PGUSER=kh://db/prod#user -- psql", "a field of a login"],
  ],
  run: async (args, ctx) => {
    const { variables, masked } = await fill(ctx, await wantedOf(args), args.encoding);
    const env = childEnvironment(ctx.inherited, variables, { clean: args.clean });
    const ended = args.mask ? await runBesideMasked(ctx, env, masked) : await become(ctx.rest, env);
    return typeof ended === "number" ? ended : ctx.out.fail(ended.fault, ended.exit);
  },
});

async function runBesideMasked(ctx: Context, env: Record<string, string>, values: readonly MaskedValue[]) {
  if (values.some(({ value }) => value.length < MASK_MIN_BYTES)) {
    ctx.out.notice(`values of fewer than ${MASK_MIN_BYTES} bytes are not masked`);
  }
  const { runMasked } = await import("../ui/masked.ts");
  return await runMasked({ command: ctx.rest, env, values, onTerminate: ctx.onTerminate });
}
