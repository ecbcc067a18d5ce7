import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { TYPE_ARG, WRITE_ARGS, writtenData, writtenLine } from "./secretargs.ts";

export default defineCommand({
  args: {
    name: { type: "positional", description: "name of the secret", ask: "Name of the secret" },
    ...TYPE_ARG,
    bytes: { type: "integer", min: 1, max: 65_536, description: "length in bytes (bytes, token; default 32)" },
    length: {
      type: "integer",
      min: 1,
      max: 65_536,
      description: "length: characters (password, pin), words (passphrase), bits (rsa)",
    },
    replace: { type: "boolean", description: "make a new version of a name that exists" },
    ...WRITE_ARGS,
  },
  details: "The value is made on this device from the server's and this device's randomness, and is not shown.",
  examples: [
    ["keyhold generate db/prod", "32 random bytes"],
    ["keyhold generate web/admin --type password --length 32 --tag web", "a password of 32 characters"],
    ["keyhold generate wallet --type secp256k1", "a key pair; the public key is shown"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const where = (await ctx.settings()).get("store", args.store) as "server" | "local" | "both" | null;
      const making = client.generate({
        name: args.name,
        type: args.type ?? "bytes",
        length: args.bytes ?? args.length,
        tags: args.tag,
        replace: args.replace,
        where,
      });
      const { info, requestId } = await ctx.term.step("Generating", making);
      return result(writtenData(info), () => writtenLine(info), { requestId });
    }),
});
