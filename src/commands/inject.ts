import { concat, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { result } from "../ui/output.ts";
import { readSecretFile, readStandardInput } from "../ui/password.ts";
import { type Resolved, referenceText, resolvedText, withReferences } from "./references.ts";
import { ENCODING_ARG } from "./secretargs.ts";
import { applyFilters, FILTERS, type Placeholder, parseTemplate, TEMPLATE_LIMITS } from "./template.ts";

function readTemplate(ctx: Context, path: string): Uint8Array {
  const limit = TEMPLATE_LIMITS.bytes + 1;
  if (path !== "-") return readSecretFile(path, limit, "accept");
  if (ctx.flags.passwordStdin) ctx.stdin.claim("the password");
  return readStandardInput(ctx, "the template", limit);
}

/** The value of a placeholder as it stands in the file. @throws Fault bad_input with the line */
function written(
  { filters, line, reference }: Placeholder,
  value: Resolved,
  encoding: "base64url" | "base64" | "hex" | null,
): Uint8Array {
  try {
    return applyFilters(value.bytes, resolvedText(value, encoding), filters);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault(error.code, `line ${line} of the template, ${referenceText(reference)}: ${error.message}`);
  }
}

/** Says where in the template the name stands that a failure is about. */
function withLine(fault: Fault, placeholders: readonly Placeholder[]): Fault {
  const found = placeholders.find(({ reference }) => fault.message.includes(JSON.stringify(reference.name)));
  if (found === undefined || fault.message.startsWith("line ")) return fault;
  return new Fault(fault.code, `line ${found.line} of the template: ${fault.message}`, {
    ...(fault.why === undefined ? {} : { why: fault.why }),
    ...(fault.hint === undefined ? {} : { hint: fault.hint }),
    ...(fault.requestId === undefined ? {} : { requestId: fault.requestId }),
  });
}

export default defineCommand({
  args: {
    file: { type: "positional", hint: "FILE", description: "the template (- is stdin)", ask: "Template" },
    ...OUT_FILE_ARGS,
    keepOther: { type: "boolean", description: "leave {{ … }} without a reference as they are" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
    ...ENCODING_ARG,
  },
  data: "none: the text is on stdout; with --out {count, out}",
  details: `Replaces each {{ kh://NAME#FIELD }} by the value and leaves all other bytes as they are. {{ "{{" }} writes two braces.
Filters say how a value is written, one after another: {{ kh://NAME | json }}. There are
${FILTERS.join(", ")}.

Either all references are resolved or nothing is written.`,
  examples: [
    ["keyhold inject app.yaml.tpl --out app.yaml", "a file with the values, 0600"],
    ["keyhold inject app.yaml.tpl --out app.yaml --mode 0640 --force", "in the place of the old one"],
    ["keyhold inject - <deployment.tpl", "from stdin to stdout"],
  ],
  run: async (args, ctx) => {
    const file = outFile(args);
    const parts = parseTemplate(readTemplate(ctx, args.file), args.keepOther ? "keep" : "refuse");
    const placeholders = parts.flatMap((part) => (part instanceof Uint8Array ? [] : part));
    const references = placeholders.map(({ reference }) => reference);
    const filled = withReferences(ctx, references, { fresh: args.fresh }, async (values) => {
      const pieces: Uint8Array[] = [];
      let whole: Uint8Array | undefined;
      try {
        let next = 0;
        const all = parts.map((part) => {
          if (part instanceof Uint8Array) return part;
          const value = values[next++];
          if (value === undefined) throw new Fault("internal", "a value is missing");
          const piece = written(part, value, args.encoding);
          pieces.push(piece);
          return piece;
        });
        whole = concat(...all);
        if (file === null) {
          ctx.out.bytes(whole);
          return;
        }
        putFile(file, whole);
        return result({ count: placeholders.length, out: file.path }, () => "", {
          requestId: values[0]?.requestId ?? null,
        });
      } finally {
        wipe(whole, ...pieces);
      }
    });
    return await filled.catch((error: unknown) => {
      throw error instanceof Fault ? withLine(error, placeholders) : error;
    });
  },
});
