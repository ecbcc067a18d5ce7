import type { KeyholdClient } from "../client/api.ts";
import { readFileTo } from "../client/files.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, type OutFile, outFile, putFile, putFileFrom } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { fieldHint, isReference, parseReference, type Reference, withReferences } from "./references.ts";

/** Less than this is there at once. */
const PROGRESS_BYTES = 262_144;

export default defineCommand({
  args: {
    ref: {
      type: "positional",
      complete: "reference",
      description: "reference (kh://NAME[#FIELD]) or name",
      ask: "Name of the secret",
    },
    ...OUT_FILE_ARGS,
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  details: `Prints the bare value, or the field that the reference names, byte for byte and without a newline.

A file is made whole or not at all; symbolic links are refused.`,
  examples: [
    ["keyhold read kh://db/prod", "the raw value on stdout"],
    ["keyhold read kh://db/prod#user", "one field"],
    ["keyhold read kh://tls/key --out key.bin", "into a new file, 0600"],
    ["keyhold read kh://tls/key --out key.bin --mode 0640 --force", "into the place of an old one"],
  ],
  data: "none: the bare value is on stdout; with --out {name, version, out}",
  run: async (args, ctx) => {
    const reference = isReference(args.ref)
      ? parseReference(args.ref)
      : { name: args.ref, version: null, profile: ctx.flags.profile, field: null };
    const file = outFile(args);
    if (reference.field === null) return whole(ctx, reference, file, args.fresh);
    return withReferences(ctx, [reference], { fresh: args.fresh }, async ([value]) => {
      if (value === undefined) return;
      if (file === null) {
        ctx.out.bytes(value.bytes);
        return;
      }
      putFile(file, value.bytes);
      const { name, version, requestId } = value;
      return result({ name, version, out: file.path }, () => "", { requestId });
    });
  },
});

/** A value of any size, piece by piece: a file is never whole in memory. */
async function whole(
  ctx: Context,
  reference: Reference,
  file: OutFile | null,
  fresh: boolean,
): Promise<Result | undefined> {
  const { name, version } = reference;
  const reading = async (write: (piece: Uint8Array) => void): Promise<Result> => {
    let done: Result | undefined;
    const instead = async (client: KeyholdClient) => {
      let counter: ReturnType<Context["term"]["counter"]> | undefined;
      const input = { name, version, fresh, purpose: "get" } as const;
      try {
        const opened = await readFileTo(client, input, {
          begin: ({ info, size, fields }) => {
            if (size === 0 && fields.length > 0) {
              throw new Fault("bad_input", `${JSON.stringify(name)} has fields only`, {
                hint: fieldHint({ info, fields }),
              });
            }
            if (size > PROGRESS_BYTES) counter = ctx.term.counter("Retrieving (KiB)", Math.ceil(size / 1_024));
          },
          write: (piece) => {
            write(piece);
            counter?.advance(Math.ceil(piece.length / 1_024));
          },
        });
        const data = { name: opened.info.name, version: opened.version, ...(file && { out: file.path }) };
        done = result(data, () => "", { requestId: opened.requestId });
      } finally {
        counter?.done();
      }
    };
    await withReferences(ctx, [reference], { fresh, instead }, async () => undefined);
    if (done === undefined) throw new Fault("internal", "nothing was read");
    return done;
  };
  if (file !== null) return putFileFrom(file, reading);
  await reading((piece) => ctx.out.bytes(piece));
  return undefined;
}
