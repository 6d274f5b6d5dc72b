console.log("native parts: nothing to do yet")
