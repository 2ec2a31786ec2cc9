"""The Triton programs themselves; `flash.run` launches them."""
