import { defineCommand } from "../ui/command.ts";
import { helpFor } from "../ui/frame.ts";
import { TOPICS, type Topic } from "./topicnames.ts";

const NAMES = Object.keys(TOPICS) as Topic[];

export default defineCommand({
  args: { command: { type: "positionals", description: `the command, or one of ${NAMES.join(", ")}` } },
  data: "{command, summary, usage, details, words, flags, data, examples}, of a group {command, summary, usage, commands}, of a topic {items} or {topic, text}",
  examples: [
    ["keyhold help generate", "explain one command"],
    ["keyhold help exit-codes", "the table of exit codes"],
    ["keyhold help passwords", "where a password comes from"],
  ],
  run: async (args, { root }) => {
    const name = NAMES.find((one) => one === args.command.join(" "));
    if (name === undefined) return await helpFor(root, args.command);
    const { topic } = await import("./topics.ts");
    return await topic(root, name);
  },
});
