"""What soulspot touches, one outside thing a module. Imports nothing by itself: a tag reader starts through here."""
