// What an event of the log says, in words.

const TEXT = {
  edit_created: "Corrected",
  rolled_back: "Rolled back",
  reinstated: "Reinstated",
  imported: "Imported",
  reencoded: "Made anew by other weights",
  scope_changed: "Changed what it is for",
};

export const eventText = (event) =>
  event.type === "restored" ? `Restored version ${event.from_version}` : (TEXT[event.type] ?? event.type);
