import { wipe } from "../crypto/bytes.ts";
import { defineCommand } from "../ui/command.ts";
import { VALUE_ARGS } from "../ui/flags.ts";
import { result } from "../ui/output.ts";
import { readValue } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { TYPE_ARG, WRITE_ARGS, writtenData, writtenLine } from "./secretargs.ts";

export default defineCommand({
  args: {
    name: { type: "positional", description: "name of the secret", ask: "Name of the secret" },
    ...VALUE_ARGS,
    ...TYPE_ARG,
    ...WRITE_ARGS,
  },
  details: "The value is kept byte for byte. A name that exists gets a new version.",
  examples: [
    ["keyhold store db/url --in-file url.txt", "the content of a file"],
    ['printf %s "$TOKEN" | keyhold store ci/token --type token', "from stdin"],
  ],
  run: async (args, ctx) => {
    const value = await readValue(ctx, args.inFile, { message: "Value" });
    try {
      return await withClient(ctx, async (client) => {
        const where = (await ctx.settings()).get("store", args.store) as "server" | "local" | "both" | null;
        const storing = client.store({ name: args.name, type: args.type, value, tags: args.tag, where });
        const { info, requestId } = await ctx.term.step("Storing", storing);
        return result(writtenData(info), () => writtenLine(info), { requestId });
      });
    } finally {
      wipe(value);
    }
  },
});
